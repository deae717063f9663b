// Asks the browser for a security key, where a form has a button for it, and sends the form with the answer.
// Signer and hub check everything; without this script there is no such button.
(function () {
  "use strict";
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-")
      .replace(/\//g, "_")
      .replace(/=+$/, "");
  const withBytes = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  async function options(url, fields, xsrf) {
    const answer = await fetch(url, {
      method: "POST",
      body: new URLSearchParams(fields),
      headers: { "X-XSRFToken": xsrf },
    });
    if (!answer.ok) {
      throw new Error(`status ${answer.status}`);
    }
    const asked = await answer.json();
    asked.challenge = bytes(asked.challenge);
    return asked;
  }

  async function get(asked) {
    asked.allowCredentials = withBytes(asked.allowCredentials);
    const key = await navigator.credentials.get({ publicKey: asked });
    return [key, { authenticatorData: key.response.authenticatorData, signature: key.response.signature }];
  }

  async function create(asked) {
    asked.excludeCredentials = withBytes(asked.excludeCredentials);
    asked.user.id = bytes(asked.user.id);
    const key = await navigator.credentials.create({ publicKey: asked });
    return [key, { attestationObject: key.response.attestationObject }];
  }

  function render([key, parts]) {
    const response = { clientDataJSON: text(key.response.clientDataJSON) };
    for (const [name, value] of Object.entries(parts)) {
      response[name] = text(value);
    }
    return JSON.stringify({
      id: key.id,
      rawId: text(key.rawId),
      type: key.type,
      response,
      clientExtensionResults: {},
    });
  }

  function explain(error) {
    switch (error.name) {
      case "InvalidStateError":
        return "That security key is there already.";
      case "NotAllowedError":
        return "No security key answered, or it was cancelled. Try again, or use a code instead.";
      case "SecurityError":
        return "This page's address is not the one that security keys are set up for. Tell the site's staff.";
      default:
        return "The security key could not be asked. Try again, or use a code instead.";
    }
  }

  for (const button of document.querySelectorAll("button[data-security-key]")) {
    if (!window.PublicKeyCredential) {
      continue; // an old browser, or no https
    }
    const form = button.form;
    const said = form.querySelector("[data-security-key-said]");
    button.hidden = false;
    button.addEventListener("click", async function () {
      const empty = ["username", "password", "name"]
        .map((name) => form.elements[name])
        .find((field) => field instanceof HTMLInputElement && !field.value.trim());
      if (empty) {
        said.textContent = `Fill in ${form.querySelector(`label[for=${empty.id}]`).textContent.trim()} first.`;
        empty.focus();
        return;
      }
      button.disabled = true;
      said.textContent = "Use your security key now.";
      try {
        const isNew = button.dataset.securityKey === "create";
        const fields = isNew ? {} : { username: form.elements.username.value, for: button.dataset.for };
        const asked = await options(button.dataset.url, fields, form.elements._xsrf.value);
        form.elements.security_key.value = render(await (isNew ? create(asked) : get(asked)));
        said.textContent = "";
        form.requestSubmit();
      } catch (error) {
        said.textContent = explain(error);
        button.disabled = false;
        button.focus();
      }
    });
  }
})();
