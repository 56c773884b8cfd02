"use strict";
/* Makes the input of a network from a photo, as data/squares.py does with Pillow: `Pixels.prepare(image, card)` returns
   Float32Array [C, H, W] in 0..1 of an image {width, height, data: RGBA}. card: fit, window, crop, size, channels;
   sizes are [height, width]. */
const Pixels = (() => {
  const BITS = 22, BORDER = 128;

  /* The weights of a triangle as wide as the reduction, for each of `count` results in from..to of `size` pixels. */
  function filter(size, from, to, count, whole) {
    const scale = Math.fround(to - from) / count, support = Math.max(scale, 1), steep = 1 / support, filters = [];
    for (let i = 0; i < count; i++) {
      const centre = from + (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - support + 0.5));
      const end = Math.min(size, Math.trunc(centre + support + 0.5));
      const weights = Float64Array.from({length: end - first}, (_, x) =>
        Math.max(0, 1 - Math.abs((x + first - centre + 0.5) * steep)));
      const sum = weights.reduce((a, b) => a + b, 0);
      const share = weights.map(one => whole ? Math.trunc(0.5 + one / sum * 2 ** BITS) : one / sum);
      filters.push({first, share});
    }
    return filters;
  }

  /* One pass along an axis of interleaved pixels, `from` and `to` = [step along the axis, step of the lines]. */
  function pass(source, from, filters, lines, out, to, channels, whole) {
    for (let line = 0; line < lines; line++)
      filters.forEach(({first, share}, i) => {
        for (let c = 0; c < channels; c++) {
          let sum = whole ? 2 ** (BITS - 1) : 0, at = line * from[1] + first * from[0] + c;
          for (let k = 0; k < share.length; k++, at += from[0]) sum += source[at] * share[k];
          out[line * to[1] + i * to[0] + c] = whole ? Math.floor(sum / 2 ** BITS) : sum;
        }
      });
    return out;
  }

  /* Resizes interleaved pixels; `box` = [left, top, right, bottom]. Pillow resizes columns first where far more rows
     are lost. whole: results are rounded to 0..255 after each pass. */
  function resize({width, height, data, channels}, box, [rows, columns], whole) {
    const kept = Math.min(channels, 3), kind = whole ? Uint8ClampedArray : Float64Array;
    const across = filter(width, box[0], box[2], columns, whole), down = filter(height, box[1], box[3], rows, whole);
    const step = [channels, channels * width];
    const result = new kind(rows * columns * kept), fine = [kept, kept * columns];
    const fewer = height - rows, first = fewer > 0 && fewer > 2 * Math.max(width - columns, 0);
    if (first) {
      const made = new kind(rows * width * kept), between = [kept * width, kept];
      pass(data, [step[1], step[0]], down, width, made, between, kept, whole);
      pass(made, [kept, kept * width], across, rows, result, fine, kept, whole);
    } else {
      const made = new kind(height * columns * kept), between = [kept, kept * columns];
      pass(data, step, across, height, made, between, kept, whole);
      pass(made, [kept * columns, kept], down, columns, result, [kept * columns, kept], kept, whole);
    }
    return {width: columns, height: rows, data: result, channels: kept};
  }

  /* The largest centred box with the shape of the window, as ImageOps.fit finds it, in single precision. */
  function centred({width, height}, [rows, columns]) {
    const live = width / height, shape = columns / rows;
    const across = live > shape ? shape * height : width, down = live > shape ? height : width / shape;
    const left = (width - across) * 0.5, top = (height - down) * 0.5;
    return [left, top, left + across, top + down].map(Math.fround);
  }

  function letterbox(image, [rows, columns]) {
    const side = (a, b, c) => Math.floor((2 * a * b + c) / (2 * c));
    const height = Math.max(1, Math.min(side(image.height, columns, image.width), rows));
    const width = Math.max(1, Math.min(side(image.width, rows, image.height), columns));
    const inner = resize(image, [0, 0, image.width, image.height], [height, width], true);
    const data = new Uint8ClampedArray(rows * columns * 3).fill(BORDER);
    const top = (rows - height) >> 1, left = (columns - width) >> 1;
    for (let y = 0; y < height; y++)
      data.set(inner.data.subarray(3 * y * width, 3 * (y + 1) * width), 3 * ((top + y) * columns + left));
    return {width: columns, height: rows, data, channels: 3};
  }

  function fitted(image, {fit, window}) {
    if (fit === "letterbox") return letterbox(image, window);
    const whole = [0, 0, image.width, image.height];
    return resize(image, fit === "crop" ? centred(image, window) : whole, window, true);
  }

  const luma = (r, g, b) => (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;

  function prepare({width, height, data: colours}, card) {
    const made = fitted({width, height, data: colours, channels: 4}, card), [rows, columns] = card.crop, grey = card.channels === 1;
    const top = (made.height - rows) >> 1, left = (made.width - columns) >> 1;
    const data = new Float32Array(rows * columns * card.channels);
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const from = 3 * ((top + y) * made.width + left + x), to = card.channels * (y * columns + x);
        if (grey) data[to] = luma(made.data[from], made.data[from + 1], made.data[from + 2]) / 255;
        else for (let c = 0; c < 3; c++) data[to + c] = made.data[from + c] / 255;
      }
    const cut = {width: columns, height: rows, data, channels: card.channels};
    const same = card.size[0] === rows && card.size[1] === columns;
    return planes(same ? cut : resize(cut, [0, 0, columns, rows], card.size, false));
  }

  function planes({width, height, data, channels}) {  // [H, W, C] to [C, H, W]
    const out = new Float32Array(data.length), size = width * height;
    for (let i = 0; i < size; i++) for (let c = 0; c < channels; c++) out[c * size + i] = data[i * channels + c];
    return out;
  }

  /* The pixels of an image file, upright, transparency on white, without colour management; rejects what is none. */
  async function decode(blob) {
    const bitmap = await createImageBitmap(blob, {imageOrientation: "from-image", colorSpaceConversion: "none"});
    return drawn(bitmap.width, bitmap.height, paper => paper.drawImage(bitmap, 0, 0));
  }

  function drawn(width, height, draw) {
    const paper = Object.assign(document.createElement("canvas"), {width, height});
    const context = paper.getContext("2d", {willReadFrequently: true});
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    draw(context);
    return context.getImageData(0, 0, width, height);
  }

  return {prepare, decode, drawn};
})();
if (typeof module !== "undefined") module.exports = Pixels;
