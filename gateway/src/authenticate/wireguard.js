const form = document.querySelector("form[data-enrol]");
const status = document.querySelector("[role=status]");
const made = document.querySelector("[data-made]");

const textOf = (octets) => btoa(String.fromCharCode(...new Uint8Array(octets)));

// RFC 8410: what stands before the 32 octets of the key.
const PKCS8_HEAD_LEN = 16;

const newPair = async () => {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const [whole, open] = [
    await crypto.subtle.exportKey("pkcs8", pair.privateKey),
    await crypto.subtle.exportKey("raw", pair.publicKey),
  ];
  return { privateKey: textOf(whole.slice(PKCS8_HEAD_LEN)), publicKey: textOf(open) };
};

const fileOf = (privateKey, told) =>
  `# ${told.name}\n[Interface]\nPrivateKey = ${privateKey}\nAddress = ${told.address_v4}/32, ${told.address_v6}/128\n` +
  `DNS = ${told.dns.join(", ")}\n\n[Peer]\nPublicKey = ${told.gateway_public_key}\nPresharedKey = ${told.preshared_key}\n` +
  `Endpoint = ${told.endpoint}\nAllowedIPs = ${told.allowed_ips.join(", ")}\nPersistentKeepalive = 25\n`;

const pictureOf = (text) => {
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const QUIET = 4;
  const grid = QR(text);
  if (!grid) return undefined;
  const size = grid.length + 2 * QUIET;
  const svg = document.createElementNS(NAMESPACE, "svg");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "QR");
  const path = document.createElementNS(NAMESPACE, "path");
  const dark = grid.flatMap((row, y) => row.map((bit, x) => (bit ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")));
  path.setAttribute("d", dark.join(""));
  svg.append(path);
  return svg;
};

const enrol = async () => {
  const pair = await newPair().catch(() => {
    throw new Error(status.dataset.old);
  });
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ name: form.elements.name.value, public_key: pair.publicKey });
  const answer = await fetch(form.dataset.enrol, { method: "POST", headers, body });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  const file = fileOf(pair.privateKey, told);
  made.querySelector("code").textContent = file;
  made.querySelector("a[download]").href = URL.createObjectURL(new Blob([file], { type: "text/plain" }));
  const picture = pictureOf(file);
  if (picture) made.querySelector(".qr").replaceChildren(picture);
  document.querySelector("[data-before]").hidden = true;
  made.hidden = false;
};

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  status.textContent = "";
  try {
    await enrol();
  } catch (error) {
    status.textContent = error.message;
    button.disabled = false;
  }
});

for (const time of document.querySelectorAll("time[datetime]")) {
  const shown = { dateStyle: "medium", timeStyle: "short" };
  time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, shown);
}
