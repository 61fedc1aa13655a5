// Prints, for each case on standard input, what apps in Node would read in each place: a line of JSON, a list of readers'
// words a place. An app that fails has read nothing.
import { readFileSync } from 'node:fs';
import querystring from 'node:querystring';

const tell = (value) => {
  if (value === undefined) return 'absent';
  if (value === null) return 'null';
  if (typeof value === 'object') return 'list';
  return 'scalar ' + Buffer.from(String(value)).toString('hex');
};
const several = (values) => tell(values.length > 1 ? values : values[0]);
const attempt = (read) => {
  try {
    return tell(read());
  } catch {
    return 'failed';
  }
};
const walk = (value, steps) => {
  for (const step of steps) {
    if (value === null || value === undefined || !Object.hasOwn(Object(value), step)) return undefined;
    value = value[step];
  }
  return value;
};
const pairs = (text, name) => [several(new URLSearchParams(text).getAll(name)), tell(querystring.parse(text)[name])];

async function readers(one) {
  const body = Buffer.from(one.body, 'hex');
  const headers = one.type === '' ? {} : { 'content-type': one.type };
  const essence = one.type.split(';')[0].trim().toLowerCase();
  // A body of bytes brings no content type of its own.
  const fetched = async (how) => {
    try {
      return await how(new Response(new Uint8Array(body), { headers }));
    } catch {
      return undefined;
    }
  };
  const form = await fetched((response) => response.formData());
  const json = await fetched((response) => response.json());
  return ([kind, name]) => {
    switch (kind) {
      case 'form': {
        const plain = essence === 'application/x-www-form-urlencoded' ? pairs(body.toString(), name) : [];
        const values = form?.getAll(name).map((value) => (typeof value === 'string' ? value : value.name)) ?? [];
        return [...plain, several(values)];
      }
      case 'query':
        return pairs(one.query, name);
      case 'json':
        return [attempt(() => walk(JSON.parse(body.toString()), name)), tell(walk(json, name))];
      default:
        return [];
    }
  };
}

// As its usual router does: the path as it came, and each value decoded.
const route = (path) => attempt(() => {
  const found = /^\/hook\/([^/]+?)\/?$/.exec(path);
  return found ? decodeURIComponent(found[1]) : undefined;
});

const { places, cases, paths } = JSON.parse(readFileSync(0, 'utf8'));
const lines = [];
for (const one of cases) {
  const read = await readers(one);
  lines.push(JSON.stringify(places.map(read)));
}
for (const path of paths) lines.push(JSON.stringify([[route(path)]]));
process.stdout.write(lines.join('\n') + '\n');
