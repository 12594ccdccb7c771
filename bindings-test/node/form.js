'use strict';
// The form of the conformance cases: the schema, bytes, and what is said of bytes.

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const FOLDER = path.join(__dirname, '..', '..', 'conformance');

class Wrong extends Error {}

// Numbers that a double cannot hold become BigInts.
function parse(text) {
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+/g, (token) =>
    token[0] === '"' || Number.isSafeInteger(Number(token)) ? token : `{"@big":"${token}"}`,
  );
  return JSON.parse(marked, (_, value) =>
    value && value['@big'] !== undefined ? BigInt(value['@big']) : value,
  );
}

function read(name) {
  return parse(fs.readFileSync(path.join(FOLDER, name), 'utf8'));
}

const isObject = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isInteger = (value) => typeof value === 'bigint' || Number.isInteger(value);
const TYPES = {
  object: isObject,
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  integer: isInteger,
};

// Whether a value has the form of a schema, of which only what ours uses is known.
function fits(value, schema, root) {
  if (schema.$ref) return fits(value, root.$defs[schema.$ref.split('/').pop()], root);
  const fitting = (forms) => forms.filter((form) => fits(value, form, root)).length;
  if (schema.type && !TYPES[schema.type](value)) return false;
  if ('const' in schema && value !== schema.const) return false;
  if (schema.enum && !schema.enum.includes(value)) return false;
  if (schema.anyOf && fitting(schema.anyOf) === 0) return false;
  if (schema.oneOf && fitting(schema.oneOf) !== 1) return false;
  if (isInteger(value) && (value < schema.minimum || value > schema.maximum)) return false;
  if (typeof value === 'string') return !schema.pattern || new RegExp(schema.pattern).test(value);
  if (Array.isArray(value)) {
    if (value.length < schema.minItems || value.length > schema.maxItems) return false;
    const form = (at) => (schema.prefixItems || [])[at] || schema.items || {};
    return value.every((item, at) => fits(item, form(at), root));
  }
  if (!isObject(value)) return true;
  const known = schema.properties || {};
  const together = Object.entries(schema.dependentRequired || {});
  const needed = together.flatMap(([name, others]) => (name in value ? others : []));
  if (![...(schema.required || []), ...needed].every((name) => name in value)) return false;
  return Object.entries(value).every(([name, field]) =>
    Object.hasOwn(known, name)
      ? fits(field, known[name], root)
      : schema.additionalProperties !== false,
  );
}

// All cases with the names of their files, terminal variants included.
function load() {
  const schema = read('schema.json');
  const cases = [];
  for (const file of fs.readdirSync(path.join(FOLDER, 'cases')).sort()) {
    const content = read(path.join('cases', file));
    if (!fits({ ...content, cases: [] }, schema, schema)) throw new Wrong(`${file}: out of form`);
    for (const one of content.cases) {
      if (!fits(one, schema.$defs.case, schema)) throw new Wrong(`${one.name}: out of form`);
      const name = path.basename(file, '.json');
      cases.push([name, one]);
      if (one.also_tty) cases.push([name, { ...one, name: `${one.name}, on a terminal`, tty: {} }]);
    }
  }
  return cases;
}

// Cases that must not pass. Those out of form are held against the schema at once.
function loadWrong(file) {
  const schema = read('schema.json');
  const content = parse(fs.readFileSync(file, 'utf8'));
  const complete = (one) => ({ name: JSON.stringify(one), promises: ['A1'], ...one });
  for (const one of content.out_of_form) {
    if (fits(complete(one), schema.$defs.case, schema)) throw new Wrong(`in form: ${JSON.stringify(one)}`);
  }
  const wrong = content.wrong.map(complete);
  for (const one of wrong) {
    if (!fits(one, schema.$defs.case, schema)) throw new Wrong(`out of form: ${one.name}`);
  }
  return wrong;
}

// The bytes that a form means, with the run's own path in them.
function value(form, own) {
  if (typeof form === 'string') return Buffer.from(form.replaceAll('@T@', own));
  const [[name, content]] = Object.entries(form);
  switch (name) {
    case 'text':
      return value(content, own);
    case 'hex':
      return Buffer.from(content.replaceAll(' ', ''), 'hex');
    case 'repeat': {
      const of = value(content.of, own);
      return content.count && of.length ? Buffer.alloc(of.length * content.count, of) : Buffer.alloc(0);
    }
    case 'cycle':
      return content ? Buffer.alloc(content, Buffer.from([...Array(251).keys()])) : Buffer.alloc(0);
    default:
      return Buffer.concat(content.map((part) => value(part, own)));
  }
}

function show(data) {
  const text = JSON.stringify(data.subarray(0, 300).toString('latin1'));
  return data.length > 300 ? `${text}... (${data.length} bytes)` : text;
}

// What is wrong with bytes; null if nothing is.
function mismatch(said, got, own) {
  const forms = ['text', 'hex', 'repeat', 'cycle', 'concat'];
  if (typeof said === 'string' || forms.some((form) => form in said)) said = { exact: said };
  if ('exact' in said && !value(said.exact, own).equals(got)) {
    return `expected ${show(value(said.exact, own))}, got ${show(got)}`;
  }
  if ('len' in said && said.len !== got.length) return `expected ${said.len} bytes, got ${show(got)}`;
  if ('sha256' in said) {
    const sum = crypto.createHash('sha256').update(got).digest('hex');
    if (sum !== said.sha256) return `expected another sum, got ${show(got)}`;
  }
  for (const part of said.contains || []) {
    if (!got.includes(value(part, own))) return `expected ${show(value(part, own))} in ${show(got)}`;
  }
  for (const part of said.absent || []) {
    if (got.includes(value(part, own))) return `expected no ${show(value(part, own))} in ${show(got)}`;
  }
  if ('matches' in said) {
    const pattern = new RegExp(`^(?:${value(said.matches, own).toString('latin1')})$`);
    if (!pattern.test(got.toString('latin1'))) {
      return `expected a match of ${said.matches}, got ${show(got)}`;
    }
  }
  if ('lines' in said) {
    const lines = got.toString('latin1').split('\n');
    const ended = lines.pop() === '';
    const wanted = said.lines.map((line) => value(line, own).toString('latin1'));
    if (!ended || wanted.sort().join('\n') !== lines.sort().join('\n') || wanted.length !== lines.length) {
      return `expected these lines in any order ${JSON.stringify(wanted)}, got ${show(got)}`;
    }
  }
  return null;
}

module.exports = { Wrong, load, loadWrong, mismatch, read, show, value };
