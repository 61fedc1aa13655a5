"""What the providers' own libraries sign, we take; and what stands in our fixtures, they judge as we do.

Run by `./test.sh --sdk`, with the network: `cross.py ONCEGATE`, in a Python that may install packages. A library that can't
be had is NOT TRIED. The exit code is 1 if any judgement differs that is not written down here with its reason.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GATE = sys.argv[1]

# Where a library judges otherwise than we do, and why that is so.
DIFFER = {
    ("Adyen", "one-of-a-batch-forged.http"): "it looks at the first item only",
    ("Adyen", "one-of-a-batch-unsigned.http"): "it looks at the first item only",
    ("standardwebhooks", "svix.http"): "it does not know the former names of the header fields",
    ("gocardless_pro", "other-order.http"): "it compares hexadecimal text letter by letter, and this is in capitals",
}


class Request:
    def __init__(self, path):
        head, _, self.body = path.read_bytes().partition(b"\r\n\r\n")
        fields = [line.split(":", 1) for line in head.decode().split("\r\n")[1:]]
        self.headers = {name.strip().lower(): value.strip() for name, value in fields}
        self.text = self.body.decode("utf-8", "surrogateescape")

    def field(self, name):
        return dict(urllib.parse.parse_qsl(self.text))[name]


# Each raises, or says False, where it refuses.
def stripe(request, secret, _):
    import stripe as sdk

    return sdk.WebhookSignature.verify_header(request.text, request.headers["stripe-signature"], secret, 300)


def standardwebhooks(request, secret, _):
    from standardwebhooks.webhooks import Webhook

    Webhook(secret).verify(request.text, request.headers)
    return True


def svix(request, secret, _):
    from svix.webhooks import Webhook

    Webhook(secret).verify(request.text, request.headers)
    return True


def razorpay(request, secret, _):
    import razorpay as sdk

    tag = request.headers["x-razorpay-signature"]
    return sdk.Client(auth=("a", "b")).utility.verify_webhook_signature(request.text, tag, secret)


def square(request, secret, expected):
    from square.utils.webhooks_helper import verify_signature

    return verify_signature(
        request_body=request.text,
        signature_header=request.headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=expected["notification_url"],
    )


def braintree(request, secret, _):
    import braintree as sdk
    from braintree.exceptions.invalid_signature_error import InvalidSignatureError

    told, payload = request.field("bt_signature"), request.field("bt_payload")
    for pair in told.split("&"):
        try:
            return bool(merchant(sdk, secret, pair.split("|")[0]).webhook_notification.parse(told, payload))
        except InvalidSignatureError:
            continue
        except Exception:
            # It is signed; what it says is another matter.
            return True
    return False


def merchant(sdk, private, public="fixture_public"):
    return sdk.BraintreeGateway(
        sdk.Configuration(sdk.Environment.Sandbox, merchant_id="m", public_key=public, private_key=private)
    )


def adyen(request, secret, _):
    from Adyen.util import is_valid_hmac_notification

    return is_valid_hmac_notification(json.loads(request.body), secret)


def paddle(request, secret, _):
    from paddle_billing.Notifications import Secret, Verifier

    request.headers = {"Paddle-Signature": request.headers["paddle-signature"]}
    return Verifier(5).verify(request, Secret(secret))


def gocardless(request, secret, _):
    from gocardless_pro import webhooks

    return webhooks._verify_signature(request.body, secret, request.headers["webhook-signature"])


def coinbase(request, secret, _):
    from coinbase_commerce.webhook import WebhookSignature

    return WebhookSignature.verify_sig_header(request.text, request.headers["x-cc-webhook-signature"], secret) or True


LIBRARIES = [
    ("stripe", "stripe", "stripe", stripe),
    ("standardwebhooks", "standardwebhooks", "standard-webhooks", standardwebhooks),
    ("svix", "svix", "standard-webhooks", svix),
    ("razorpay", "razorpay", "razorpay", razorpay),
    ("squareup", "square", "square", square),
    ("braintree", "braintree", "braintree", braintree),
    ("Adyen", "Adyen", "adyen", adyen),
    ("paddle-python-sdk", "paddle_billing", "paddle", paddle),
    ("gocardless_pro", "gocardless_pro", "gocardless", gocardless),
    ("coinbase-commerce", "coinbase_commerce", "coinbase-commerce", coinbase),
]


def installed(package, module):
    try:
        importlib.import_module(module)
        return True
    except ImportError:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", package]
        if subprocess.run(pip, capture_output=True, timeout=300).returncode != 0:
            return False
        importlib.invalidate_caches()
        importlib.import_module(module)
        return True


def accepts(verify, request, secret, expected, at):
    import freezegun

    try:
        with freezegun.freeze_time(at) if at else contextlib.nullcontext():
            return verify(request, secret, expected) in (True, None)
    except Exception:
        return False


def they_judge(package, folder, verify):
    """Our fixtures, by their library: as many judgements as were the same, and what differed."""
    import datetime

    expected = json.loads((FIXTURES / folder / "expect.json").read_text())
    same, different, met = 0, [], set()
    for name, of_file in expected["files"].items():
        if of_file["signature"] not in ("valid", "invalid"):
            continue
        second = of_file.get("at", expected.get("at"))
        at = second and datetime.datetime.fromtimestamp(second, datetime.timezone.utc)
        secrets = [secret["value"] for secret in expected["secrets"]]
        request = lambda: Request(FIXTURES / folder / name)
        # What it imports, it imports in real time.
        accepts(verify, request(), secrets[0], expected, None)
        told = any(accepts(verify, request(), secret, expected, at) for secret in secrets)
        if told == (of_file["signature"] == "valid"):
            same += 1
        elif (package, name) in DIFFER:
            met.add((package, name))
            print(f"  {folder}/{name}: {'taken' if told else 'refused'} by {package}: {DIFFER[package, name]}")
        else:
            different.append(f"{folder}/{name}: {package} {'takes' if told else 'refuses'} what we call {of_file['signature']}")
    stale = {known for known in DIFFER if known[0] == package} - met
    return same, different + [f"{package} no longer differs on {name}" for _, name in sorted(stale)]


BODY = '{"id":"evt_sdk","object":"event","type":"x","amount":4200,"text":"\\u00e9 \\u20ac é €"}'
AT = 1775000000


def they_sign():
    """What libraries sign: provider, secret, header fields, body."""
    import datetime

    try:
        import stripe as sdk

        tag = sdk.WebhookSignature._compute_signature(f"{AT}.{BODY}", "whsec_sdk")
        yield "stripe", "whsec_sdk", {"Stripe-Signature": f"t={AT},v1={tag}"}, BODY
    except ImportError:
        pass
    for module in ("standardwebhooks.webhooks", "svix.webhooks"):
        try:
            sdk = importlib.import_module(module)
        except ImportError:
            continue
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        tag = sdk.Webhook(secret).sign("msg_sdk", datetime.datetime.fromtimestamp(AT, datetime.timezone.utc), BODY)
        prefix = module.split(".")[0].replace("standardwebhooks", "webhook")
        fields = {f"{prefix}-id": "msg_sdk", f"{prefix}-timestamp": str(AT), f"{prefix}-signature": tag}
        yield "standard-webhooks", secret, fields, BODY
    try:
        import braintree as sdk

        for kind in ("transaction_settled", "dispute_opened", "subscription_charged_successfully"):
            fields = merchant(sdk, "sdk_private").webhook_testing.sample_notification(kind, "tx_sdk")
            form = {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}
            yield "braintree", "sdk_private", {"Content-Type": "application/x-www-form-urlencoded"}, urllib.parse.urlencode(form)
    except ImportError:
        pass
    try:
        from Adyen.util import generate_notification_sig

        item = {
            "additionalData": {},
            "pspReference": "SDK1",
            "merchantAccountCode": "TestMerchant",
            "merchantReference": "INV-é",
            "eventCode": "AUTHORISATION",
            "success": "true",
            "amount": {"value": 4200, "currency": "EUR"},
        }
        key = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
        tag = generate_notification_sig(item, key)
        item["additionalData"]["hmacSignature"] = tag.decode() if isinstance(tag, bytes) else tag
        body = json.dumps({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]})
        yield "adyen", key, {}, body
    except ImportError:
        pass
    try:
        from coinbase_commerce.webhook import WebhookSignature

        tag = WebhookSignature._compute_signature(BODY, "cc_sdk")
        yield "coinbase-commerce", "cc_sdk", {"X-CC-Webhook-Signature": tag}, BODY
    except ImportError:
        pass


def we_judge(provider, secret, fields, body):
    """What the gate says of the signature, as it came and with a character changed."""
    told = []
    at = body.rfind("4200") if "4200" in body else len(body) // 2
    changed = body[:at] + ("A" if body[at] != "A" else "B") + body[at + 1 :]
    if provider == "adyen":
        changed = body.replace("4200", "4201")
    for text in (body, changed):
        with tempfile.TemporaryDirectory() as folder:
            config = f"log.callbacks = false\n[provider.{provider}]\nsecrets = [{{ value = {json.dumps(secret)} }}]\n"
            pathlib.Path(folder, "config.toml").write_text(config)
            lines = {"Host": "x.test", "Content-Type": "application/json", **fields}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            raw = text.encode()
            pathlib.Path(folder, "it.http").write_bytes(
                f"POST / HTTP/1.1\r\n{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw
            )
            args = [GATE, "explain", "--format", "json", "--at", str(AT), "--provider", provider, "it.http"]
            out = subprocess.run(args, cwd=folder, capture_output=True, text=True, check=True)
            told.append(json.loads(out.stdout.splitlines()[0])["signature"])
    return told


def main():
    if not installed("freezegun", "freezegun"):
        print("NOT TRIED: no package can be had")
        return 0
    failures, had = [], 0
    for package, module, folder, verify in LIBRARIES:
        if not installed(package, module):
            print(f"NOT TRIED: {package} can't be had")
            continue
        had += 1
        # Each in a process of its own, for its clock is turned back.
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            same, different = alone.apply(they_judge, (package, folder, verify))
        print(f"{package}: {same} fixtures judged alike")
        failures += different if same else [*different, f"{package} judged nothing alike"]
    for provider, secret, fields, body in they_sign():
        told = we_judge(provider, secret, fields, body)
        print(f"{provider}: signed by its library, {told[0]}; changed, {told[1]}")
        if told != ["valid", "invalid"]:
            failures.append(f"{provider}: signed by its library, and we say {told}")
    for failure in failures:
        print(f"DIFFERS: {failure}")
    print(f"{had} of {len(LIBRARIES)} libraries tried")
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ.pop("TEST_MODE", None)
    sys.exit(main())
