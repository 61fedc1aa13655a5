// What the providers' own libraries for Node sign, we take; and what stands in our fixtures, they judge as we do.
//
// Run by `./test.sh --sdk`, with the network: `cross.mjs ONCEGATE FOLDER`, where packages may be installed in the folder. A library
// that can't be had is NOT TRIED. The exit code is 1 if any judgement differs that is not written down here with its reason.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [GATE, FOLDER] = process.argv.slice(2);
const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;
const load = createRequire(join(FOLDER, "index.js"));

// Where a library judges otherwise than we do, and why that is so.
const DIFFER = {
  "stripe two-times.http": "of two times it takes the last one",
  "standardwebhooks svix.http": "it does not know the former names of the header fields",
  "mercadopago letters.http": "it takes an id with letters in lower case only",
  ...Object.fromEntries(
    ["paid", "with-its-type-signed", "refunded-in-part", "closed", "waiting"].map((file) => [
      `alipay-sdk ${file}.http`,
      "to it empty fields are signed as well; we take both ways",
    ]),
  ),
};

class Request {
  constructor(path) {
    const raw = readFileSync(path);
    const end = raw.indexOf("\r\n\r\n");
    const [first, ...fields] = raw.subarray(0, end).toString().split("\r\n");
    const pair = (line) => [line.slice(0, line.indexOf(":")).trim().toLowerCase(), line.slice(line.indexOf(":") + 1).trim()];
    this.query = new URL(first.split(" ")[1], "https://x.test").searchParams;
    this.headers = Object.fromEntries(fields.map(pair));
    this.body = raw.subarray(end + 4);
    this.text = this.body.toString();
    this.form = Object.fromEntries(new URLSearchParams(this.text));
  }
}

const merchant = (sdk, privateKey, publicKey = "fixture_public") =>
  new sdk.BraintreeGateway({ environment: sdk.Environment.Sandbox, merchantId: "m", publicKey, privateKey });

// The package, the folder of fixtures, and how it judges: it throws, or says false, where it refuses.
const LIBRARIES = [
  ["stripe", "stripe", (sdk, request, secret) =>
    new sdk("sk_x").webhooks.signature.verifyHeader(request.text, request.headers["stripe-signature"], secret, 300)],
  ["standardwebhooks", "standard-webhooks", (sdk, request, secret) => {
    new sdk.Webhook(secret).verify(request.text, request.headers);
    return true;
  }],
  ["svix", "standard-webhooks", (sdk, request, secret) => {
    new sdk.Webhook(secret).verify(request.text, request.headers);
    return true;
  }],
  ["razorpay", "razorpay", (sdk, request, secret) =>
    sdk.validateWebhookSignature(request.text, request.headers["x-razorpay-signature"], secret)],
  ["square", "square", (sdk, request, signatureKey, expected) =>
    sdk.WebhooksHelper.verifySignature({
      requestBody: request.text,
      signatureHeader: request.headers["x-square-hmacsha256-signature"],
      signatureKey,
      notificationUrl: expected.notification_url,
    })],
  ["braintree", "braintree", async (sdk, request, secret) => {
    for (const pair of request.form.bt_signature.split("&")) {
      try {
        await merchant(sdk, secret, pair.split("|")[0]).webhookNotification.parse(request.form.bt_signature, request.form.bt_payload);
        return true;
      } catch (error) {
        // It is signed; what it says is another matter.
        if (error.type !== "invalidSignatureError") return true;
      }
    }
    return false;
  }],
  ["@adyen/api-library", "adyen", (sdk, request, secret) => {
    const items = JSON.parse(request.text).notificationItems;
    return items.every((item) => new sdk.hmacValidator().validateHMAC(item.NotificationRequestItem, secret));
  }],
  ["@paddle/paddle-node-sdk", "paddle", (sdk, request, secret) =>
    new sdk.Paddle("key").webhooks.isSignatureValid(request.text, secret, request.headers["paddle-signature"])],
  ["gocardless-nodejs", "gocardless", (sdk, request, secret) => {
    load("gocardless-nodejs/webhooks").verifySignature(request.text, secret, request.headers["webhook-signature"]);
    return true;
  }],
  ["coinbase-commerce-node", "coinbase-commerce", (sdk, request, secret) =>
    sdk.Webhook.verifySigHeader(request.text, request.headers["x-cc-webhook-signature"], secret)],
  ["mercadopago", "mercadopago", (sdk, request, secret) => {
    sdk.WebhookSignatureValidator.validate({
      xSignature: request.headers["x-signature"],
      xRequestId: request.headers["x-request-id"],
      dataId: request.query.get("data.id"),
      secret,
    });
    return true;
  }],
  ["alipay-sdk", "alipay", (sdk, request, key) => {
    const privateKey = readFileSync(join(FIXTURES, "keys/rsa.pem"), "utf8");
    return new sdk.AlipaySdk({ appId: "1", privateKey, keyType: "PKCS8", alipayPublicKey: key.trim() }).checkNotifySignV2(request.form);
  }],
];

function installed(name) {
  try {
    execFileSync("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", FOLDER, name], {
      stdio: "ignore",
      timeout: 300_000,
    });
    return load(name);
  } catch {
    return null;
  }
}

const RealDate = Date;

// The clock of this process stands at this second while something is asked.
async function at(second, ask) {
  if (second) {
    globalThis.Date = class extends RealDate {
      constructor(...told) {
        super(...(told.length ? told : [second * 1000]));
      }
      static now() {
        return second * 1000;
      }
    };
  }
  try {
    return [true, undefined].includes(await ask());
  } catch {
    return false;
  } finally {
    globalThis.Date = RealDate;
  }
}

// Our fixtures, by their library: as many judgements as were the same, and what differed.
async function theyJudge(name, folder, verify, sdk) {
  const expected = JSON.parse(readFileSync(join(FIXTURES, folder, "expect.json")));
  let same = 0;
  const different = [];
  const met = new Set();
  for (const [file, ofFile] of Object.entries(expected.files)) {
    if (!["valid", "invalid"].includes(ofFile.signature)) continue;
    let told = false;
    for (const secret of expected.secrets) {
      const value = secret.value ?? readFileSync(join(FIXTURES, folder, secret.file), "utf8");
      const request = new Request(join(FIXTURES, folder, file));
      told ||= await at(ofFile.at ?? expected.at, () => verify(sdk, request, value, expected));
    }
    const key = `${name} ${file}`;
    if (told === (ofFile.signature === "valid")) same += 1;
    else if (key in DIFFER) {
      met.add(key);
      console.log(`  ${folder}/${file}: ${told ? "taken" : "refused"} by ${name}: ${DIFFER[key]}`);
    } else different.push(`${folder}/${file}: ${name} ${told ? "takes" : "refuses"} what we call ${ofFile.signature}`);
  }
  const stale = Object.keys(DIFFER).filter((key) => key.startsWith(`${name} `) && !met.has(key));
  return [same, [...different, ...stale.map((key) => `no longer differs: ${key}`)]];
}

const BODY = '{"id":"evt_sdk","object":"event","type":"x","amount":4200,"text":"\\u00e9 \\u20ac é €"}';
const AT = 1775000000;

// What libraries sign: provider, secret, header fields, body; and another body that is not signed.
async function* theySign(had) {
  if (had.stripe) {
    const tag = new had.stripe("sk_x").webhooks.generateTestHeaderString({ payload: BODY, secret: "whsec_sdk", timestamp: AT });
    yield ["stripe", "whsec_sdk", { "Stripe-Signature": tag }, BODY];
  }
  for (const [name, prefix] of [["standardwebhooks", "webhook"], ["svix", "svix"]]) {
    if (!had[name]) continue;
    const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const tag = new had[name].Webhook(secret).sign("msg_sdk", new RealDate(AT * 1000), BODY);
    const fields = { [`${prefix}-id`]: "msg_sdk", [`${prefix}-timestamp`]: AT, [`${prefix}-signature`]: tag };
    yield ["standard-webhooks", secret, fields, BODY];
  }
  if (had.braintree) {
    const gateway = merchant(had.braintree, "sdk_private");
    for (const kind of ["transaction_settled", "dispute_opened", "subscription_charged_successfully"]) {
      const { bt_signature, bt_payload } = await gateway.webhookTesting.sampleNotification(kind, "tx_sdk");
      const body = new URLSearchParams({ bt_signature, bt_payload }).toString();
      yield ["braintree", "sdk_private", { "Content-Type": "application/x-www-form-urlencoded" }, body];
    }
  }
  if (had["@adyen/api-library"]) {
    const item = {
      additionalData: {}, pspReference: "SDK1", originalReference: "", merchantAccountCode: "TestMerchant",
      merchantReference: "INV-é", eventCode: "AUTHORISATION", success: "true", amount: { value: 4200, currency: "EUR" },
    };
    const key = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    item.additionalData.hmacSignature = new had["@adyen/api-library"].hmacValidator().calculateHmac(item, key);
    yield ["adyen", key, {}, JSON.stringify({ live: "false", notificationItems: [{ NotificationRequestItem: item }] })];
  }
  if (had["coinbase-commerce-node"]) {
    const tag = had["coinbase-commerce-node"].Webhook.computeSignature(BODY, "cc_sdk");
    yield ["coinbase-commerce", "cc_sdk", { "X-CC-Webhook-Signature": tag }, BODY];
  }
}

// What the gate says of the signature, as it came and with a character changed.
function weJudge(provider, secret, fields, body) {
  const place = body.includes("4200") ? body.lastIndexOf("4200") : Math.floor(body.length / 2);
  const changed = body.slice(0, place) + (body[place] === "5" ? "6" : "5") + body.slice(place + 1);
  return [body, changed].map((text) => {
    const folder = mkdtempSync(join(tmpdir(), "oncegate-sdk-"));
    writeFileSync(
      join(folder, "config.toml"),
      `log.callbacks = false\n[provider.${provider}]\nsecrets = [{ value = ${JSON.stringify(secret)} }]\n`,
    );
    const lines = { Host: "x.test", "Content-Type": "application/json", ...fields };
    const head = Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`);
    const length = Buffer.byteLength(text);
    writeFileSync(join(folder, "it.http"), `POST / HTTP/1.1\r\n${head.join("")}Content-Length: ${length}\r\n\r\n${text}`);
    const args = ["explain", "--format", "json", "--at", `${AT}`, "--provider", provider, "it.http"];
    const said = execFileSync(GATE, args, { cwd: folder, encoding: "utf8" });
    rmSync(folder, { recursive: true });
    return JSON.parse(said.split("\n")[0]).signature;
  });
}

const failures = [];
const had = {};
for (const [name, folder, verify] of LIBRARIES) {
  const sdk = installed(name);
  if (!sdk) {
    console.log(`NOT TRIED: ${name} can't be had`);
    continue;
  }
  had[name] = sdk;
  const [same, different] = await theyJudge(name, folder, verify, sdk);
  console.log(`${name}: ${same} fixtures judged alike`);
  failures.push(...different, ...(same ? [] : [`${name} judged nothing alike`]));
}
for await (const [provider, secret, fields, body] of theySign(had)) {
  const told = weJudge(provider, secret, fields, body);
  console.log(`${provider}: signed by its library, ${told[0]}; changed, ${told[1]}`);
  if (told[0] !== "valid" || told[1] !== "invalid") failures.push(`${provider}: signed by its library, and we say ${told}`);
}
for (const failure of failures) console.log(`DIFFERS: ${failure}`);
console.log(`${Object.keys(had).length} of ${LIBRARIES.length} libraries tried`);
process.exit(failures.length ? 1 : 0);
