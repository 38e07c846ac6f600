// Searches images by a description, in the page: no server, from file:// too. Text goes into nodes as text, never as html.
"use strict";

// root: the section of search.html; config: see cskt.page.write_page.
globalThis.csktSearch = (root, config) => {
  const find = (query) => root.querySelector(query), pause = () => new Promise((done) => setTimeout(done));
  const files = (globalThis.csktFiles ??= {}), [form, check] = root.querySelectorAll("form");
  const box = find("textarea"), camera = find(".camera"), examples = find(".examples"), count = find(".count");
  const status = find(".status"), percent = (share) => `${(100 * share).toFixed(2).replace(/\.?0+$/, "")}%`;
  const count_of = (input, most) => Math.max(1, Math.min(most, Math.round(Number(input.value)) || 1));
  let gallery, queries, written, engine = null, failed = false, turn = 0, pending = false;

  const tell = (text, node = status) => { node.textContent = text; };
  const note = (sentences) => {
    tell(sentences.join(" "), find(".notes"));
    find(".notes").hidden = !sentences.length;
  };

  // ---- loading: scripts are what a page opened from disk may load
  const sizes = Object.values(config.sizes), total = sizes.reduce((sum, size) => sum + size, 0);
  let loaded = 0;
  const script = (source) => new Promise((done, fail) => {
    const element = document.createElement("script");
    element.onload = () => {
      loaded += config.sizes[source.slice(source.lastIndexOf("/") + 1)] ?? 0;
      element.remove();
      done();
    };
    element.onerror = () => fail(new Error(`${source} could not be loaded`));
    element.src = source;
    document.head.append(element);
  });
  const load = async (what, source) => {
    if (!engine) tell(`Loading ${what}: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB are here …`);
    await script(source);
  };
  const unpack = async (name) => {
    const text = atob(files[name]), bytes = new Uint8Array(text.length);
    delete files[name]; // megabytes
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));

  const start = async () => {
    for (const name of config.scripts) await load("the runtime", config.runtime + name);
    const [glue, binary] = config.scripts.slice(1).map((name) => unpack(name.replace(/\.js$/, "")));
    for (const [name, what] of Object.entries({ tokenizer: "the tokenizer", features: "image features",
      encoder: "the text encoder" })) await load(what, `${config.data}${name}.data.js`);
    tell("Starting the text encoder …");
    const [tables, numbers, encoder] = ["tokenizer", "features", "encoder"].map(unpack);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { mjs: address(await glue) };
    ort.env.wasm.wasmBinary = (await binary).buffer;
    const starting = ort.InferenceSession.create(await encoder, { executionProviders: ["wasm"] });
    const tokenizer = csktTokenizer(JSON.parse(new TextDecoder().decode(await tables)));
    const features = new Float32Array((await numbers).buffer), session = await starting;
    let last = Promise.resolve(); // the session takes one caption at a time
    const encode = (text) => {
      const ids = BigInt64Array.from(tokenizer.fit(tokenizer.encode(text)), BigInt);
      const run = () => session.run({ token_ids: new ort.Tensor("int64", ids, [1, ids.length]) });
      last = last.catch(() => {}).then(run);
      return last.then((result) => result.feature.data);
    };
    const similarity = (feature, image) => {
      let sum = 0;
      for (let i = 0, at = image * feature.length; i < feature.length; i++) sum += feature[i] * features[at + i];
      return sum;
    };
    const rank = (feature, most, wanted = () => true) => gallery.identities
      .map((_, image) => image).filter(wanted).map((image) => ({ image, score: similarity(feature, image) }))
      .sort((one, other) => other.score - one.score).slice(0, most);
    await encode("a"); // the first one takes longest
    return { tokenizer, encode, similarity, rank };
  };

  // ---- showing
  const precomputed = (caption, most = config.hits) => queries.order[caption].slice(0, most)
    .map((image, place) => ({ image, score: queries.scores[caption][place] }));
  const show = (hits, truth) => {
    const figures = hits.map(({ image, score }, place) => {
      const right = truth && truth.has(gallery.identities[image]), mark = truth ? (right ? "✓ right" : "✗ wrong") : "";
      const figure = document.createElement("figure"), picture = document.createElement("img");
      const where = gallery.cameras[image] && `, camera ${gallery.cameras[image]}`;
      picture.src = gallery.thumbnails[image];
      picture.alt = picture.title = `rank ${place + 1}, identity ${gallery.identities[image]}${where}, `
        + `similarity ${score.toFixed(2)} ${mark}`.trim();
      if (truth) figure.className = right ? "right" : "wrong";
      const caption = document.createElement("figcaption");
      tell(`${place + 1} · ${score.toFixed(2)} ${mark.slice(0, 1)}`, caption);
      figure.append(picture, caption);
      return figure;
    });
    find(".hits").replaceChildren(...figures);
  };
  const verdict = (hits, truth) => {
    if (!truth) return "Nobody knows who is meant, so nothing is marked right or wrong.";
    const first = hits.findIndex(({ image }) => truth.has(gallery.identities[image]));
    return "This is a test caption, so who is meant is known: "
      + (first < 0 ? "none of these." : `first found at rank ${first + 1}.`);
  };

  // What a word contributes: the similarity of the first hit with the sentence, minus that without the word.
  const explain = async (text, hit, mine) => {
    const pieces = text.split(/\s+/), words = engine.tokenizer.words(text), shown = [];
    let upto = 0;
    for (const [place, piece] of pieces.entries()) {
      upto += engine.tokenizer.words(piece).length;
      if (!words[upto - 1]?.read) continue; // cut off
      const without = await engine.encode(pieces.filter((_, other) => other !== place).join(" "));
      await pause();
      if (mine !== turn) return;
      shown.push([pieces[place], hit.score - engine.similarity(without, hit.image)]);
    }
    const most = Math.max(...shown.map(([, change]) => Math.abs(change)), 1e-6);
    find(".words ol").replaceChildren(...shown.map(([word, change]) => {
      const item = document.createElement("li"), bar = document.createElement("i"), value = document.createElement("small");
      tell(`${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}`, value);
      bar.style.height = `${(32 * Math.abs(change)) / most}px`;
      if (change < 0) item.className = "against";
      item.append(value, bar, word);
      return item;
    }));
    tell("What each word does for the first hit: its similarity minus that of the sentence without the word "
      + "(green: the word speaks for this image; orange, hatched: against it).", find(".words p"));
    find(".words").hidden = shown.length < 2;
  };

  const search = async () => {
    const mine = ++turn, text = box.value.trim().replace(/\s+/g, " "), truth = written.get(text)?.truth;
    pending = false;
    note([]);
    find(".words").hidden = true;
    if (!text) return tell("Type a description first, for example: a man in a grey hoodie with a red backpack.");
    const length = [...text].length; // as Python counts
    if (length > config.longest) {
      return tell(`The description has ${length.toLocaleString("en")} characters; shorten it to ${config.longest}.`);
    }
    const caption = written.get(text)?.caption;
    if (!engine && truth) { // what Python found is shown at once
      const hits = precomputed(caption, count_of(count, config.hits));
      show(hits, truth);
      if (failed) tell(`Python's ranking. ${verdict(hits, truth)}`);
      else pending = true;
      return;
    }
    if (!engine) {
      pending = !failed;
      return tell(failed ? "The text encoder does not run in this browser: choose an example; its hits are precomputed."
        : "The text encoder is still loading; your search runs as soon as it is here.");
    }
    const clock = performance.now();
    const wanted = camera.value ? (image) => gallery.cameras[image] === camera.value : undefined;
    const hits = engine.rank(await engine.encode(text), count_of(count, 50), wanted), took = performance.now() - clock;
    if (mine !== turn) return;
    const words = engine.tokenizer.words(text), cut = words.findIndex((word) => !word.read);
    const unknown = [...new Set(words.filter((word) => !word.known).map((word) => word.text))];
    const notes = [];
    if (unknown.length) {
      notes.push(`This backbone has never seen: ${unknown.slice(0, 12).join(", ")}`
        + `${unknown.length > 12 ? ` and ${unknown.length - 12} more` : ""}. Such words tell it nothing.`);
    }
    if (cut >= 0) notes.push(`The sentence is too long: what follows “${words[cut - 1]?.text ?? ""}” is not read.`);
    note(notes);
    show(hits, truth);
    tell(`${hits.length} of ${gallery.identities.length.toLocaleString("en")} images in ${took.toFixed(0)} ms. `
      + verdict(hits, truth));
    return explain(text, hits[0], mine);
  };

  // ---- every ranking again, here
  let checking = false;
  const compare = async () => {
    const output = check.querySelector("p"), button = check.querySelector("button");
    if (checking) return void (checking = false);
    checking = true;
    button.textContent = "Stop";
    const most = count_of(check.querySelector("input"), queries.captions.length);
    let done = 0, same = 0, alike = 0, off = 0, spent = 0;
    for (; done < most && checking; done++) {
      const clock = performance.now(), hits = engine.rank(await engine.encode(queries.captions[done]), config.hits);
      spent += performance.now() - clock;
      const expected = precomputed(done), found = new Map(hits.map(({ image, score }) => [image, score]));
      same += hits.every(({ image }, place) => image === expected[place].image);
      alike += expected.every(({ image }) => found.has(image));
      for (const { image, score } of expected) if (found.has(image)) off = Math.max(off, Math.abs(score - found.get(image)));
      if (done % 20 === 0) await pause();
      if (done % 200 === 199) tell(`${done + 1} of ${most} captions …`, output);
    }
    checking = false;
    button.textContent = "Check against Python";
    tell(`${done.toLocaleString("en")} captions: the same ${config.hits} images for ${percent(alike / done)}, in the same `
      + `order for ${percent(same / done)}; similarities differ by at most ${off.toFixed(5)}; `
      + `${(spent / done).toFixed(1)} ms per caption in this browser.`, output);
  };

  // ---- controls
  const broken = (error) => tell(`The text encoder stopped: ${error.message}. Open the page again.`);
  form.addEventListener("submit", (event) => { event.preventDefault(); if (written) search().catch(broken); });
  check.addEventListener("submit", (event) => { event.preventDefault(); if (engine) compare().catch(broken); });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  box.addEventListener("input", () => { examples.value = ""; });
  examples.addEventListener("change", () => {
    box.value = queries.captions[examples.value] ?? box.value;
    form.requestSubmit();
  });
  for (const control of [camera, count]) control.addEventListener("change", () => form.requestSubmit());

  const open = async () => {
    await load("images and precomputed rankings", `${config.data}gallery.data.js`);
    await script(`${config.data}queries.data.js`);
    ({ gallery, queries } = files);
    written = new Map(); // two people may be described alike
    queries.captions.forEach((text, caption) => {
      const entry = written.get(text) ?? { caption, truth: new Set() };
      written.set(text, entry);
      entry.truth.add(gallery.identities[queries.images[caption]]);
    });
    const options = config.examples.map((caption) => new Option(queries.captions[caption], caption));
    examples.replaceChildren(new Option("choose a test caption …", ""), ...options);
    examples.value = config.examples[0];
    for (const name of [...new Set(gallery.cameras)].sort()) if (name) camera.append(new Option(name, name));
    camera.parentElement.hidden = camera.options.length < 2;
    const { caption, truth } = written.get(queries.captions[config.examples[0]]);
    show(precomputed(caption, count_of(count, config.hits)), truth); // while the rest is loading
    const missing = ["WebAssembly", "DecompressionStream"].filter((name) => !globalThis[name]);
    if (missing.length) throw new Error(`this browser has no ${missing.join(" and no ")}`);
    engine = await start();
    check.querySelector("button").disabled = false;
    if (pending) return search();
    tell(`Ready (${(total / 1e6).toFixed(1)} MB, ${(performance.now() / 1000).toFixed(1)} s after opening). Type a `
      + "description and press Enter; below are Python's hits for the example.");
  };
  open().catch((error) => {
    failed = true;
    camera.disabled = true;
    tell(`The text encoder does not run here: ${error.message}. ${queries ? "The examples are precomputed by Python: choose one."
      : "Its images could not be loaded."}`);
  });
};
