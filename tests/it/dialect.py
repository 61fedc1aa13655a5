# Prints, for each case on standard input, what apps in Python would read in each place: a line of JSON, a list of readers'
# words a place. An app that fails has read nothing.
import email.message
import email.parser
import email.policy
import http.cookies
import json
import re
import sys
import urllib.parse

FORM = "application/x-www-form-urlencoded"


def tell(value):
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return "list"
    return "scalar " + str(value).encode("utf-8", "replace").hex()


def several(values):
    return "absent" if not values else tell(values if len(values) > 1 else values[0])


def attempt(read):
    try:
        return read()
    except (ValueError, RecursionError, LookupError, TypeError, http.cookies.CookieError):
        return "failed"


def pairs(text, name):
    def read():
        return several(urllib.parse.parse_qs(text, keep_blank_values=True, max_num_fields=1000).get(name))

    return attempt(read)


def parts(kind, body, name):
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body
    )
    named = [
        part
        for part in (message.iter_parts() if message.is_multipart() else [])
        if part.get_param("name", header="content-disposition") == name and part.get_filename() is None
    ]
    return several([part.get_payload(decode=True).decode("utf-8", "replace") for part in named])


def walk(value, steps):
    for step in steps:
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            value = value[step]
        elif isinstance(value, (list, str)) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return "absent"
    return tell(value)


def read(case, kind, name):
    body = bytes.fromhex(case["body"])
    header = email.message.Message()
    header["Content-Type"] = case["type"]
    if kind == "form":
        if header.get_content_type() == FORM:
            return [pairs(body.decode("utf-8", "replace"), name)]
        if header.get_content_type() == "multipart/form-data":
            return [attempt(lambda: parts(case["type"], body, name))]
        return ["absent"]
    if kind == "query":
        return [pairs(case["query"], name)]
    if kind == "cookie":
        cookie = http.cookies.SimpleCookie()
        return [attempt(lambda: cookie.load(case["cookie"]) or several([cookie[name].value] if name in cookie else []))]
    return [attempt(lambda: walk(json.loads(body), name))]


def route(path):
    # As WSGI does: the path is decoded as a whole, and then taken apart.
    found = re.fullmatch(r"/hook/([^/]+)", urllib.parse.unquote(path))
    return several([found[1]] if found else [])


asked = json.load(sys.stdin)
for case in asked["cases"]:
    print(json.dumps([read(case, kind, name) for kind, name in asked["places"]]))
for path in asked["paths"]:
    print(json.dumps([[attempt(lambda: route(path))]]))
