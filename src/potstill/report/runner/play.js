"use strict";
/* The section "Try it": photos that are dropped, chosen or drawn are classified by the model of the page. */
(() => {
  const at = name => document.getElementById(`play-${name}`);
  const json = name => JSON.parse(at(name).textContent);
  const model = json("model"), texts = json("texts"), SHOWN = 24;
  let run = null, turn = 0;

  const say = (key, values = {}) => texts[key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  const percent = share => `${(100 * share).toFixed(1)} %`;
  const pause = () => new Promise(done => setTimeout(done));

  function make(tag, text = "", className = "") {
    return Object.assign(document.createElement(tag), {textContent: text, className});
  }

  /* Returns {order: classes by probability, probability, sure} of RGBA pixels. */
  function classified(image) {
    run ??= Runner.load(model.program);
    const probability = Runner.probabilities(run(Pixels.prepare(image, model.card)), model.temperature);
    const order = [...probability.keys()].sort((a, b) => probability[b] - probability[a]);
    return {order, probability, sure: !(probability[order[0]] < model.threshold)};
  }

  /* --- what was dropped --- */

  const byName = (a, b) => a.name < b.name ? -1 : 1;
  const promised = (object, method) => new Promise((done, fail) => object[method](done, fail));

  /* [[file, path]] of what is dropped. Chromium reads folders of a page without server only by handles; other browsers
     have entries alone. */
  async function inside(one, path = "") {
    const name = path + one.name;
    if (one.kind === "file") return [[await one.getFile(), name]];
    if (one.isFile) return [[await promised(one, "file"), name]];
    const below = [];
    if (one.values) for await (const each of one.values()) below.push(each);
    else for (let reader = one.createReader(), some = [1]; some.length;)
      below.push(...some = await promised(reader, "readEntries"));
    return (await Promise.all(below.sort(byName).map(each => inside(each, `${name}/`)))).flat();
  }

  async function dropped(event) {
    event.preventDefault();
    at("drop").classList.remove("over");
    const items = [...event.dataTransfer.items].filter(item => item.kind === "file");
    const roots = items.map(item => item.getAsFileSystemHandle?.() ?? item.webkitGetAsEntry());
    const files = await Promise.all((await Promise.all(roots)).map(one => inside(one)));
    await all(files.flat());
  }

  const chosen = event => {
    const files = [...event.target.files].map(file => [file, file.webkitRelativePath || file.name]);
    event.target.value = "";
    return all(files);
  };

  /* --- photos --- */

  const plain = text => text.normalize("NFC").trim().toLowerCase();
  const numbers = new Map(model.classes.map((name, number) => [plain(name), number]));

  function label(path) {  // the class of the innermost folder that is named like one
    const folders = path.split("/").slice(0, -1);
    for (const folder of folders.reverse()) if (numbers.has(plain(folder))) return numbers.get(plain(folder));
    return null;
  }

  async function all(files) {
    const mine = ++turn, photos = files.filter(([, path]) => !path.split("/").pop().startsWith("."));
    const table = model.classes.map(() => ({count: 0, right: 0})), strange = new Set();
    for (const name of ["accuracy", "problems", "results"]) at(name).replaceChildren();
    if (!photos.length) return status("none");
    let good = 0, milliseconds = 0;
    at("stop").hidden = false;
    for (const [done, [file, path]] of photos.entries()) {
      status("progress", {done, all: photos.length});
      await pause();
      const image = await Pixels.decode(file).catch(() => null);
      if (mine !== turn) return;
      if (!image) {
        at("problems").append(make("li", say("broken", {name: path})));
        continue;
      }
      const began = performance.now(), answer = classified(image), truth = label(path);
      if (good) milliseconds += performance.now() - began;
      if (truth !== null) table[truth].count++;
      else if (path.includes("/")) strange.add(path.split("/").slice(-2)[0]);
      if (truth === answer.order[0]) table[truth].right++;
      if (good++ < SHOWN) at("results").append(card(image, answer, path, truth));
      if (good === SHOWN + 1) at("problems").append(make("li", say("more", {count: SHOWN})));
      tell(table, strange);
    }
    at("stop").hidden = true;
    const ms = Math.round(milliseconds / Math.max(1, good - 1));
    if (good) status(good === 1 ? "one" : "done", {all: good, ms}); else status("none");
  }

  function status(key, values) {
    at("status").textContent = say(key, values);
  }

  function stop() {
    turn++;
    at("stop").hidden = true;
  }

  function tell(table, strange) {
    const total = {count: 0, right: 0};
    for (const one of table) { total.count += one.count; total.right += one.right; }
    if (!total.count) return;
    const {count, right} = total, enough = count >= model.enough;
    const [low, high] = wilson(right, count).map(percent);
    const line = make("p", enough ? say("accuracy", {accuracy: percent(right / count), right, count, low, high})
      : say("few", {count, right, enough: model.enough}), enough ? "lead" : "");
    at("accuracy").replaceChildren(line);
    if (enough && model.accuracy) line.append(" ", make("span", say("test", {accuracy: model.accuracy}), "small"));
    if (strange.size) at("accuracy").append(make("p", say("strange", {names: [...strange].join(", ")}), "small"));
    if (enough) at("accuracy").append(byClass(table));
  }

  function wilson(right, count, z = 1.959963984540054) {
    const share = right / count, half = z * Math.sqrt(share * (1 - share) / count + (z / count) ** 2 / 4);
    const middle = share + z * z / 2 / count, scale = 1 + z * z / count;
    return [(middle - half) / scale, (middle + half) / scale];
  }

  function byClass(table) {
    const whole = make("table"), head = whole.createTHead().insertRow(), body = whole.createTBody();
    for (const [text, kind] of [[say("class"), ""], [say("photos"), "n"], [say("right"), "n"]])
      head.append(Object.assign(make("th", text, kind), {scope: "col"}));
    table.forEach(({count, right}, number) => {
      if (!count) return;
      const row = body.insertRow();
      row.append(Object.assign(make("th", model.classes[number]), {scope: "row"}));
      row.append(make("td", count, "n"), make("td", `${right} (${percent(right / count)})`, "n"));
    });
    return whole;
  }

  function card(image, answer, path, truth) {
    const whole = make("div", "", "card"), left = make("div"), name = path.split("/").pop();
    const right = truth === null ? "" : truth === answer.order[0] ? " good" : " bad";
    left.append(thumbnail(image, name), make("p", name, "name"));
    if (truth !== null) left.append(make("p", `${say("label")}: ${model.classes[truth]}`, `verdict${right}`));
    whole.append(left, bars(answer));
    return whole;
  }

  function thumbnail(image, name) {
    const scale = 176 / Math.max(image.width, image.height), paper = document.createElement("canvas");
    paper.width = Math.max(1, image.width * scale);
    paper.height = Math.max(1, image.height * scale);
    const whole = document.createElement("canvas");
    Object.assign(whole, {width: image.width, height: image.height}).getContext("2d").putImageData(image, 0, 0);
    const context = paper.getContext("2d");
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(whole, 0, 0, paper.width, paper.height);
    paper.setAttribute("role", "img");
    paper.setAttribute("aria-label", `${say("photo")}: ${name}`);
    return paper;
  }

  function bars({order, probability, sure}) {
    const whole = make("table", "", "bars"), head = whole.createTHead().insertRow(), body = whole.createTBody();
    head.append(Object.assign(make("th", say("class"), "name"), {scope: "col"}));
    head.append(Object.assign(make("th", say("probability")), {scope: "col"}));
    if (!sure) body.insertRow().append(Object.assign(make("td", say("unsure"), "small"), {colSpan: 2}));
    order.slice(0, 3).forEach((number, place) => {
      const row = body.insertRow(), cell = row.insertCell(), share = probability[number];
      row.prepend(Object.assign(make("th", model.classes[number], place ? "" : "true"), {scope: "row"}));
      const bar = make("div", share >= 0.005 ? Math.round(100 * share) : "0", "bar student");
      bar.style.setProperty("--p", share.toFixed(4));
      cell.append(bar);
    });
    return whole;
  }

  /* --- a drawing --- */

  function drawing(paper, {dark, share, stroke}) {
    const context = paper.getContext("2d", {willReadFrequently: true}), side = paper.width;
    const [back, ink] = dark ? ["black", "white"] : ["white", "black"];
    const pen = {x: side / 2, y: side / 2, down: false};
    let waiting = 0;
    Object.assign(context, {lineCap: "round", lineJoin: "round", lineWidth: stroke * side, strokeStyle: ink});
    clear();

    function clear() {
      context.fillStyle = back;
      context.fillRect(0, 0, side, side);
      at("drawn").textContent = say("empty");
    }

    function line(x, y) {
      context.beginPath();
      context.moveTo(pen.x, pen.y);
      context.lineTo(x, y);
      if (pen.down) {
        context.stroke();
        clearTimeout(waiting);
        waiting = setTimeout(answer, 60);
      }
      Object.assign(pen, {x, y});
    }

    const place = event => [event.offsetX, event.offsetY].map(one => one * side / paper.clientWidth);
    paper.addEventListener("pointerdown", event => {
      paper.setPointerCapture(event.pointerId);
      [pen.x, pen.y] = place(event);
      pen.down = true;
      line(pen.x, pen.y);
    });
    paper.addEventListener("pointermove", event => { if (event.buttons) line(...place(event)); });
    paper.addEventListener("pointerup", () => { pen.down = false; });
    paper.addEventListener("keydown", event => {
      const [x, y] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] ?? [0, 0];
      if (event.key === " ") pen.down = !pen.down; else if (!x && !y) return;
      event.preventDefault();
      const inside = one => Math.min(side, Math.max(0, one));
      line(inside(pen.x + x * side / 20), inside(pen.y + y * side / 20));
    });
    at("clear").addEventListener("click", clear);

    function answer() {
      const image = context.getImageData(0, 0, side, side), box = inked(image);
      if (!box) return;
      const result = classified(centred(box));
      const line = make("p", "", "lead");
      line.append(`${say("drawing")}: `, make("b", result.sure ? model.classes[result.order[0]] : say("unsure")));
      at("drawn").replaceChildren(line, bars(result));
    }

    function inked({data}) {  // the box of what is drawn, and its centre of mass
      const box = {left: side, top: side, right: 0, bottom: 0, x: 0, y: 0}, base = dark ? 0 : 255;
      let mass = 0;
      for (let y = 0; y < side; y++)
        for (let x = 0; x < side; x++) {
          const weight = Math.abs(data[4 * (y * side + x)] - base);
          if (!weight) continue;
          Object.assign(box, {left: Math.min(box.left, x), right: Math.max(box.right, x + 1)});
          Object.assign(box, {top: Math.min(box.top, y), bottom: Math.max(box.bottom, y + 1)});
          box.x += weight * x;
          box.y += weight * y;
          mass += weight;
        }
      return mass ? {...box, x: box.x / mass, y: box.y / mass} : null;
    }

    function centred({left, top, right, bottom, x, y}) {  // as large, and as centred, as the images of the data
      const scale = share * side / Math.max(right - left, bottom - top);
      return Pixels.drawn(side, side, to => {
        to.fillStyle = back;
        to.fillRect(0, 0, side, side);
        to.setTransform(scale, 0, 0, scale, side / 2 - scale * x, side / 2 - scale * y);
        to.drawImage(paper, left, top, right - left, bottom - top, left, top, right - left, bottom - top);
      });
    }
  }

  const zone = at("drop");
  zone.addEventListener("dragover", event => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", dropped);
  at("files").addEventListener("change", chosen);
  at("folder").addEventListener("change", chosen);
  at("stop").addEventListener("click", stop);
  if (model.drawing) drawing(at("paper"), model.drawing);
})();
