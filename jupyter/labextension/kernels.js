// hpchub in JupyterLab 4: why a kernel's job waits, and the resources that it asks for.
//
// Written by hand as the container that JupyterLab expects of a prebuilt extension (module federation), so that
// nothing has to be built: JupyterLab loads this file, hands the modules that it shares to init(), and asks get()
// for the plugin. The requests are answered by hpchub/kernels/server.py.
"use strict";

(() => {
  const NAME = "hpchub-kernels";
  const LOOK_MS = 1000;
  // Between two questions to the server.
  const FIRST_PAUSE_MS = 2000;
  const LONGEST_PAUSE_MS = 10000;
  const HEARD_MS = 50;
  const HEARD_TRIES = 100;
  // Of a notification.
  const LONGEST_TEXT = 140;
  const STARTS = new Set(["initializing", "starting", "connecting"]);
  const PROVISIONER = "hpchub-slurm";
  const RESOURCES = "hpchub-kernels:resources";
  // Of the form: a setting in kernel.json, its label, and what may be typed.
  const FIELDS = [
    ["partition", "Partition", "Its name. Empty: Slurm's default."],
    ["time", "Time", "Such as 02:00:00 or 1-12:00:00. Empty: the partition's default."],
    ["cpus", "CPUs", "A number. Empty: 1."],
    ["memory", "Memory", "Such as 500M or 8G. Empty: the partition's default."],
    ["gpus", "GPUs", "A number. Empty: none."],
    ["title", "Title", "What JupyterLab calls the kernel. Empty: made from the above."]
  ];
  const STYLE = `
.hpchub-resources { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px;
  width: min(520px, 100vw - 100px); color: var(--jp-ui-font-color1); }
.hpchub-resources > p { grid-column: 1 / -1; margin: 0; white-space: pre-wrap; }
.hpchub-resources label { display: block; font-weight: 600; margin-bottom: 2px; }
.hpchub-resources input.jp-mod-styled { width: 100%; box-sizing: border-box; }
.hpchub-resources > .hpchub-refused { border-left: 4px solid var(--jp-error-color1); padding-left: 8px; }
`;

  let shared = null;

  // A module that JupyterLab shares: the version that is in use.
  async function load(name) {
    const versions = Object.values(shared[name]);
    const version = versions.find((one) => one.loaded) ?? versions[0];
    return (await version.get())();
  }

  // Requests to our part of the notebook server: ask("/waiting"), ask("/waiting/ID", "DELETE").
  function asker(ServerConnection, settings) {
    return async (path, method = "GET", body = undefined) => {
      const init = { method, body: body && JSON.stringify(body), cache: "no-store" };
      const url = `${settings.baseUrl}hpchub/kernels${path}`;
      const response = await ServerConnection.makeRequest(url, init, settings);
      if (!response.ok) {
        throw await ServerConnection.ResponseError.create(response);
      }
      return response.status === 204 ? null : response.json();
    };
  }

  // -- Why a kernel waits ------------------------------------------------------------------------------------

  // What the notification says. JupyterLab cuts off what is longer; the reason is worth more than a long name.
  function told(one) {
    const file = one.notebook.split("/").pop();
    const room = Math.max(12, LONGEST_TEXT - one.reason.length - " waits for its kernel.\n".length);
    const name = file.length > room ? `${file.slice(0, room - 1)}…` : file;
    return `${name ? `${name} waits for its kernel` : `The kernel ${one.title} waits`}.\n${one.reason}`;
  }

  // A notification for each kernel that waits, which goes with the wait.
  class Notices {
    constructor(Notification, ask) {
      this.Notification = Notification;
      this.ask = ask;
      this.shown = new Map(); // a kernel's id -> its notification's id and text
    }

    // These wait, and no others.
    show(kernels) {
      for (const [kernel, notice] of this.shown) {
        if (!kernels.some((one) => one.id === kernel)) {
          this.Notification.dismiss(notice.id);
          this.shown.delete(kernel);
        }
      }
      for (const one of kernels.filter((one) => one.reason)) {
        const message = told(one);
        const notice = this.shown.get(one.id);
        const options = { autoClose: false, actions: [this.giveUp(one)] };
        if (!notice) {
          const id = this.Notification.emit(message, "in-progress", options);
          this.shown.set(one.id, { id, message });
        } else if (notice.message !== message) {
          this.Notification.update({ id: notice.id, message, type: "in-progress", ...options });
          notice.message = message;
        }
      }
    }

    giveUp(one) {
      return {
        label: "Give up",
        caption: `Cancel job ${one.job}`,
        callback: () => {
          this.ask(`/waiting/${one.id}`, "DELETE").catch((error) => {
            // 404: it no longer waits.
            if (error.response?.status !== 404) {
              this.Notification.error(`Job ${one.job} could not be given up: ${error.message}`);
            }
          });
        }
      };
    }
  }

  // Asks the server when the page is loaded, and while a kernel of this page starts or any waits, ever less often.
  // Ends where our part of the server is not there.
  async function watch(notices, ask, contexts) {
    let starting = 0;
    let waiting = 1; // not known yet
    let pause = FIRST_PAUSE_MS;
    let next = 0;
    for (;;) {
      await new Promise((done) => setTimeout(done, LOOK_MS));
      const before = starting;
      starting = contexts().filter((context) => STARTS.has(context.kernelDisplayStatus)).length;
      if (starting !== before) {
        pause = FIRST_PAUSE_MS;
        // Most kernels are there at once; and one that is there waits no longer.
        next = starting > before ? Date.now() + pause : 0;
      }
      if ((!starting && !waiting) || Date.now() < next) {
        continue;
      }
      try {
        const kernels = await ask("/waiting");
        waiting = kernels.length;
        notices.show(kernels);
      } catch (error) {
        if (error.response?.status === 404) {
          return;
        }
        // The server does not answer: JupyterLab itself says so.
      }
      next = Date.now() + pause;
      pause = Math.min(1.5 * pause, LONGEST_PAUSE_MS);
    }
  }

  // -- A kernel that is wanted instead of one that waits -----------------------------------------------------

  // Gives up the kernels that this notebook or console waits for; their jobs are put into `jobs`.
  async function giveUpOthers(context, ask, jobs) {
    const path = context.path.slice(0, context.path.lastIndexOf("/") + 1) + context.name;
    const others = (await ask("/waiting")).filter((one) => one.notebook === path);
    for (const one of others) {
      jobs.add(one.job);
      await ask(`/waiting/${one.id}`, "DELETE").catch((error) => {
        if (error.response?.status !== 404) {
          throw error;
        }
      });
    }
    // JupyterLab hears of it in the next moment, and would then take what it starts by now for failed.
    for (let left = others.length && HEARD_TRIES; left && STARTS.has(context.kernelDisplayStatus); left--) {
      await new Promise((done) => setTimeout(done, HEARD_MS));
    }
  }

  // Takes away the dialogs in which JupyterLab says that the kernel of one of these jobs did not start, and asks
  // which other one to start: that has been chosen.
  function spareDialogs(tracker, jobs) {
    const never = Promise.resolve(false);
    let before = never; // whether the dialog that was made just before is such a one
    tracker.widgetAdded.connect((_, dialog) => {
      const follows = before;
      const tells = dialog.ready.then(() => {
        // Lines as the server breaks them, or as it writes them down within a sentence of its own.
        const found = /given up before its job (\d+) began/.exec(dialog.node.textContent.replace(/\s+|\\n/g, " "));
        return found !== null && jobs.has(found[1]);
      });
      before = tells;
      // JupyterLab makes both in one turn of the loop.
      setTimeout(() => {
        before = before === tells ? never : before;
      });
      void Promise.all([tells, follows]).then((ours) => {
        if (ours.includes(true)) {
          dialog.reject();
        }
      });
    });
  }

  // -- The resources of a kernel's job -----------------------------------------------------------------------

  // An element with these properties and children.
  function element(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  // The fields, filled with the settings of kernel.json, and a line for what the server says.
  class Form {
    constructor(spec) {
      const config = spec.metadata.kernel_provisioner.config ?? {};
      this.status = element("p");
      this.status.setAttribute("role", "status");
      this.inputs = new Map();
      const rows = FIELDS.map(([name, label, hint]) => {
        const id = `hpchub-resources-${name}`;
        const input = element("input", { id, className: "jp-mod-styled", value: config[name] ?? "" });
        input.autocomplete = "off";
        input.setAttribute("aria-describedby", `${id}-hint`);
        this.inputs.set(name, input);
        const words = element("small", { id: `${id}-hint` }, hint);
        return element("div", {}, element("label", { htmlFor: id }, label), input, words);
      });
      const what =
        `The kernel ${spec.display_name} runs in a Slurm job. Other resources make another kernel in a new job. This ` +
        "one ends, and its variables with it.";
      this.node = element("div", { className: "hpchub-resources" }, element("p", {}, what), ...rows, this.status);
    }

    say(text, isError = false) {
      this.status.textContent = text;
      this.status.classList.toggle("hpchub-refused", isError);
      this.status.scrollIntoView({ block: "nearest" });
    }

    get values() {
      const { title, ...settings } = Object.fromEntries([...this.inputs].map(([name, one]) => [name, one.value]));
      return { settings, title };
    }
  }

  // Asks for other resources until the server has a kernel with them, or nobody wants it any more: that kernel's
  // name, or null.
  async function chooseResources({ Dialog, Widget }, ask, spec) {
    const form = new Form(spec);
    let made = null;
    let asking = false;
    class ResourcesDialog extends Dialog {
      // Called for a button's number, and for Enter.
      resolve(index = 1) {
        if (index === 0) {
          super.resolve(index);
        } else if (!asking) {
          asking = true;
          form.say("Trying it, and asking Slurm…");
          ask("", "POST", { kernel: spec.name, ...form.values })
            .then((kernel) => {
              made = kernel.name;
              super.resolve(index);
            })
            .catch((error) => form.say(error.message, true))
            .finally(() => {
              asking = false;
            });
        }
      }
    }
    const dialog = new ResourcesDialog({
      title: "Resources of the kernel's job",
      body: new Widget({ node: form.node }),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: "Use" })],
      focusNodeSelector: "input"
    });
    const result = await dialog.launch();
    return result.button.accept ? made : null;
  }

  // The kernel's specification where a notebook's or console's kernel runs in a job, or would; otherwise null.
  function jobSpec(panel, specs) {
    const context = panel.sessionContext;
    // A notebook that never had a kernel has an empty name in its metadata.
    const name =
      context.session?.kernel?.name ||
      panel.content?.model?.getMetadata?.("kernelspec")?.name ||
      context.kernelPreference.name;
    const spec = specs?.kernelspecs[name];
    return spec?.metadata?.kernel_provisioner?.provisioner_name === PROVISIONER ? spec : null;
  }

  // The command, in the menu and the palette; not to be had where `isServed` says no.
  function addResources(app, lab, ask, trackers, palette, menu, isServed) {
    const replaced = new Set(); // jobs
    spareDialogs(lab.Dialog.tracker, replaced);
    const kernels = app.serviceManager.kernelspecs;
    const current = () =>
      trackers.map((tracker) => tracker.currentWidget).find((panel) => panel && panel === app.shell.currentWidget);
    const spec = () => (current() ? jobSpec(current(), kernels.specs) : null);
    app.commands.addCommand(RESOURCES, {
      label: "Resources of the Kernel's Job…",
      caption: "Change to a kernel whose job has another partition, time, or number of cores",
      isEnabled: () => isServed() && spec() !== null,
      execute: async () => {
        const context = current().sessionContext;
        const name = await chooseResources(lab, ask, spec());
        if (name !== null) {
          await kernels.refreshSpecs();
          try {
            // A session of its own: after a change within one JupyterLab 4.6 does not see the new kernel's end, and
            // a restart leads to the one before.
            await context.shutdown();
            await giveUpOthers(context, ask, replaced);
          } catch (error) {
            lab.Notification.error(`The kernel before could not be ended: ${error.message}`);
          }
          // JupyterLab itself shows why a kernel does not start.
          context.changeKernel({ name }).catch(() => {});
        }
      }
    });
    palette?.addItem({ command: RESOURCES, category: "Kernel Operations" });
    menu?.kernelMenu.addGroup([{ command: RESOURCES }], 30);
  }

  // -- The plugin --------------------------------------------------------------------------------------------

  async function makePlugin() {
    const { Dialog, ICommandPalette, Notification } = await load("@jupyterlab/apputils");
    const { ServerConnection } = await load("@jupyterlab/services");
    const { INotebookTracker } = await load("@jupyterlab/notebook");
    const { IConsoleTracker } = await load("@jupyterlab/console");
    const { IMainMenu } = await load("@jupyterlab/mainmenu");
    const { Widget } = await load("@lumino/widgets");
    return {
      id: `${NAME}:plugin`,
      description: "Says why a kernel's job waits, and lets its resources be chosen.",
      autoStart: true,
      optional: [INotebookTracker, IConsoleTracker, ICommandPalette, IMainMenu],
      activate: (app, notebooks, consoles, palette, menu) => {
        const trackers = [notebooks, consoles].filter((tracker) => tracker);
        const ask = asker(ServerConnection, app.serviceManager.serverSettings);
        const contexts = () => {
          const all = [];
          trackers.forEach((tracker) => tracker.forEach((panel) => all.push(panel.sessionContext)));
          return all;
        };
        document.head.append(element("style", {}, STYLE));
        let served = true;
        addResources(app, { Dialog, Notification, Widget }, ask, trackers, palette, menu, () => served);
        void watch(new Notices(Notification, ask), ask, contexts).then(() => {
          served = false;
        });
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB[NAME] = {
    init(scope) {
      shared = scope;
    },
    async get() {
      const plugin = await makePlugin();
      return () => plugin;
    }
  };
})();
