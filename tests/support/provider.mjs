// A real OpenID provider (oidc-provider, certified) for the tests, on loopback.
// Its settings are a line of JSON on standard input, and it ends when that is closed, so that it cannot
// outlive the tests. It says `ready` on standard output.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin });
lines.once('close', () => process.exit());
const settings = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)));
const require = createRequire(settings.modules);
const { default: Provider } = await import(require.resolve('oidc-provider'));

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: { keys: settings.keys },
  acrValues: settings.acr_values,
  claims: {
    acr: null,
    auth_time: null,
    openid: ['sub'],
    profile: ['preferred_username', 'groups'],
    email: ['email', 'email_verified'],
  },
  conformIdTokenClaims: false,
  cookies: { keys: ['only-for-tests'] },
  features: { devInteractions: { enabled: false } },
  findAccount: (_ctx, id) => settings.people[id] && {
    accountId: id,
    claims: () => ({ sub: id, ...settings.people[id] }),
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  // The site has agreed once and for all that its people may log in at its hub.
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      accountId: ctx.oidc.session.accountId,
      clientId: ctx.oidc.client.clientId,
    });
    grant.addOIDCScope('openid profile email');
    await grant.save();
    return grant;
  },
  pkce: { required: () => true },
});

// The portal's login page: who somebody is, and which factors they showed, is what the form says.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  if (ctx.method === 'GET') {
    ctx.type = 'html';
    ctx.body = '<title>Portal</title><form method="post"><label>Name <input name="login"></label>'
      + '<button>Log in</button></form>';
    return undefined;
  }
  let body = '';
  for await (const chunk of ctx.req) body += chunk;
  const form = new URLSearchParams(body);
  if (form.get('cancel')) {
    return provider.interactionFinished(ctx.req, ctx.res, { error: 'access_denied' });
  }
  return provider.interactionFinished(ctx.req, ctx.res, {
    login: { accountId: form.get('login'), acr: form.get('acr') ?? undefined },
  });
});

provider.on('server_error', (_ctx, error) => console.error(error));
provider.listen(settings.port, '127.0.0.1', () => console.log('ready'));
