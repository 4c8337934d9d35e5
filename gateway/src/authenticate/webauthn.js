"use strict";
const button = document.querySelector("button[data-ceremony]");
const status = document.querySelector("[role=status]");

const octetsOf = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const textOf = (octets) =>
  btoa(String.fromCharCode(...new Uint8Array(octets))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const known = (list) => list.map((credential) => ({ ...credential, id: octetsOf(credential.id) }));

const post = async (to, message) => {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(to, { method: "POST", headers, body: JSON.stringify(message) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
};

const ceremonies = {
  create: async (options) => {
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: octetsOf(options.challenge),
        user: { ...options.user, id: octetsOf(options.user.id) },
        excludeCredentials: known(options.excludeCredentials),
      },
    });
    return {
      name: document.querySelector("input[name=name]").value,
      client_data: textOf(made.response.clientDataJSON),
      attestation_object: textOf(made.response.attestationObject),
    };
  },
  get: async (options) => {
    const given = await navigator.credentials.get({
      publicKey: {
        ...options,
        challenge: octetsOf(options.challenge),
        allowCredentials: known(options.allowCredentials),
      },
    });
    return {
      credential_id: textOf(given.rawId),
      client_data: textOf(given.response.clientDataJSON),
      authenticator_data: textOf(given.response.authenticatorData),
      signature: textOf(given.response.signature),
    };
  },
};

button?.addEventListener("click", async () => {
  button.disabled = true;
  status.textContent = "";
  try {
    const options = await post(button.dataset.options, {});
    const said = await post(button.dataset.result, await ceremonies[button.dataset.ceremony](options));
    location.assign(said.location);
  } catch (error) {
    status.textContent = error.message;
    button.disabled = false;
  }
});
