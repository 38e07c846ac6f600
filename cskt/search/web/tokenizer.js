// CLIP's byte-level BPE tokenizer as open_clip has it, and the cut to the model's length, without Python.
"use strict";

// tables: see cskt.page.tokenizer_tables. Returns { encode, fit, words }.
globalThis.csktTokenizer = ({ merges, entities, context, columns, end, known }) => {
  const CACHED = 5000, START = end - 1;
  const WINDOWS = "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ"; // 128 to 159: Node's TextDecoder has them wrong
  const bytesOf = new TextEncoder();

  // Bytes that print keep their character, the others follow from 256 on: the vocabulary is made of those.
  const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const symbols = [], listed = [];
  for (let byte = 0; byte < 256; byte++) if (printable(byte)) listed.push(byte);
  for (let byte = 0, next = 256; byte < 256; byte++) {
    symbols[byte] = String.fromCharCode(printable(byte) ? byte : next++);
    if (!printable(byte)) listed.push(byte);
  }
  const alphabet = listed.map((byte) => symbols[byte]);
  const vocabulary = [...alphabet, ...alphabet.map((symbol) => symbol + "</w>"),
    ...merges.map((pair) => pair.replace(" ", ""))];
  const ids = new Map(vocabulary.map((token, id) => [token, id]));
  const ranks = new Map(merges.map((pair, rank) => [pair, rank]));
  const special = new Map([["<start_of_text>", START], ["<end_of_text>", end]]);
  const learned = known && new Set(known);
  const cache = new Map();

  // Python's html.unescape.
  const reference = (whole, name) => {
    if (name[0] === "#") {
      const digits = name.slice(1).replace(/;$/, "");
      const code = /^x/i.test(digits) ? parseInt(digits.slice(1), 16) : parseInt(digits, 10);
      if (code === 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return "\ufffd";
      if (code > 127 && code < 160) return WINDOWS[code - 128];
      const shown = code === 9 || code === 10 || code === 12 || code === 13 || (code > 31 && code !== 127);
      return shown && (code & 0xfffe) !== 0xfffe && !(code > 0xfdcf && code < 0xfdf0) ? String.fromCodePoint(code) : "";
    }
    for (let length = name.length; length > 1; length--) {
      const found = Object.hasOwn(entities, name.slice(0, length)) && entities[name.slice(0, length)];
      if (found) return found + name.slice(length);
    }
    return whole;
  };
  const unescape = (text) => text.replace(/&(#\d+;?|#[xX][\da-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/g, reference);

  // What ftfy does to a text that was typed; it would also repair text that was decoded wrongly, which is left alone.
  const tidy = (text) => (text.includes("<") ? text : unescape(text))
    .replace(/\x1b\[[\d;]*[a-zA-Z]/g, "")
    .replace(/[\x80-\x9f]/g, (control) => WINDOWS[control.charCodeAt(0) - 128])
    .replace(/ﬅ/g, "ſt")
    .replace(/[Ĳĳŉ\u01c4-\u01cc\u01f1-\u01f3ﬀ-ﬄﬆ\u3000\uff01-\uffef]/g, (wide) => wide.normalize("NFKC"))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
    .normalize("NFC");
  const clean = (text) => unescape(unescape(tidy(text)))
    .replace(/[\s\x1c-\x1f\x85]+/g, (space) => (space.replace(/\ufeff/g, "") ? " " : space)).trim().toLowerCase();

  const WORDS = /<start_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^ \p{L}\p{N}]+/gu;

  const merge = (word) => {
    if (special.has(word)) return [special.get(word)];
    if (cache.has(word)) return cache.get(word);
    let parts = Array.from(bytesOf.encode(word), (byte) => symbols[byte]);
    parts[parts.length - 1] += "</w>";
    while (parts.length > 1) {
      let best = Infinity, pair = null;
      for (let i = 1; i < parts.length; i++) {
        const rank = ranks.get(parts[i - 1] + " " + parts[i]);
        if (rank < best) [best, pair] = [rank, [parts[i - 1], parts[i]]];
      }
      if (!pair) break;
      const merged = [];
      for (let i = 0; i < parts.length; i++) {
        const joins = parts[i] === pair[0] && parts[i + 1] === pair[1];
        merged.push(joins ? parts[i++] + parts[i] : parts[i]);
      }
      parts = merged;
    }
    const tokens = parts.map((part) => ids.get(part));
    if (cache.size < CACHED) cache.set(word, tokens);
    return tokens;
  };
  const split = (text) => clean(text).match(WORDS) ?? [];

  return {
    // The ids that open_clip's tokenizer gives, without padding: start, words, end, at most `context`.
    encode(text) {
      const tokens = [START, ...split(text).flatMap(merge), end];
      return tokens.length > context ? [...tokens.slice(0, context - 1), end] : tokens;
    },
    // What the model reads of them: up to the first end token, which a long text keeps in its last column.
    fit(tokens) {
      const held = tokens.slice(0, tokens.indexOf(end) + 1);
      return held.length > columns ? [...held.slice(0, columns - 1), end] : held;
    },
    // Its words in order: { text, known, read }, read: whether the model reads all of it.
    words(text) {
      let place = 1;
      return split(text).map((word) => {
        const tokens = merge(word);
        place += tokens.length;
        return { text: word, known: !learned || tokens.every((token) => learned.has(token)), read: place < columns };
      });
    },
  };
};
