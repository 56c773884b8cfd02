"use strict";
/* Runs a program of report/runner/program.py: `Runner.load(program)` returns a function of one image, Float32Array
   [C, H, W] in 0..1, that returns the logits. Sums are in double precision, results of operators in single. */
const Runner = (() => {
  const KINDS = {f4: Float32Array, i1: Int8Array, u1: Uint8Array, i4: Int32Array};
  const volume = shape => shape.reduce((a, b) => a * b, 1);

  function load(program) {
    const bytes = decoded(program.bytes).buffer;
    const held = new Map();
    for (const [number, kind, start, shape] of program.constants)
      held.set(number, {shape, data: new KINDS[kind](bytes, start, volume(shape))});
    const later = [];
    for (const step of program.steps)  // what depends on constants alone is computed once: weights are dequantized
      if (step[1].every(number => held.has(number))) held.set(step[2], done(step, held)); else later.push(step);
    const last = new Map();
    later.forEach((step, at) => step[1].forEach(number => last.set(number, at)));
    return image => {
      const tensors = new Map(held).set(program.input, {data: image});
      later.forEach((step, at) => {
        tensors.set(step[2], done(step, tensors));
        for (const number of step[1]) if (last.get(number) === at) tensors.delete(number);
      });
      return tensors.get(program.output).data;
    };
  }

  function decoded(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  function done([kind, inputs, , settings], tensors) {
    const given = inputs.map(number => number < 0 ? null : tensors.get(number).data);
    return {data: OPERATORS[kind](settings, ...given)};
  }

  /* out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[m]); matrices begin at aAt, bAt, outAt. Blocks of 4 by 2. */
  function multiply(a, aAt, b, bAt, out, outAt, rows, columns, depth, bias, biasAt) {
    let m = 0;
    for (; m + 4 <= rows; m += 4) {
      const a0 = aAt + m * depth, a1 = a0 + depth, a2 = a1 + depth, a3 = a2 + depth;
      const s0 = bias ? bias[biasAt + m] : 0, s1 = bias ? bias[biasAt + m + 1] : 0;
      const s2 = bias ? bias[biasAt + m + 2] : 0, s3 = bias ? bias[biasAt + m + 3] : 0;
      let n = 0;
      for (; n + 2 <= columns; n += 2) {
        const b0 = bAt + n * depth, b1 = b0 + depth;
        let c00 = s0, c01 = s0, c10 = s1, c11 = s1, c20 = s2, c21 = s2, c30 = s3, c31 = s3;
        for (let k = 0; k < depth; k++) {
          const x = b[b0 + k], y = b[b1 + k], p = a[a0 + k], q = a[a1 + k], r = a[a2 + k], s = a[a3 + k];
          c00 += p * x; c01 += p * y; c10 += q * x; c11 += q * y;
          c20 += r * x; c21 += r * y; c30 += s * x; c31 += s * y;
        }
        const at = outAt + m * columns + n;
        out[at] = c00; out[at + 1] = c01;
        out[at + columns] = c10; out[at + columns + 1] = c11;
        out[at + 2 * columns] = c20; out[at + 2 * columns + 1] = c21;
        out[at + 3 * columns] = c30; out[at + 3 * columns + 1] = c31;
      }
      for (; n < columns; n++)
        for (let i = 0; i < 4; i++) out[outAt + (m + i) * columns + n] = one(m + i, n);
    }
    for (; m < rows; m++)
      for (let n = 0; n < columns; n++) out[outAt + m * columns + n] = one(m, n);

    function one(row, column) {
      const left = aAt + row * depth, right = bAt + column * depth;
      let sum = bias ? bias[biasAt + row] : 0;
      for (let k = 0; k < depth; k++) sum += a[left + k] * b[right + k];
      return sum;
    }
  }

  function conv({shape, from, kernel, strides, dilations, pads, group}, x, weight, bias) {
    const [, filters, rows, columns] = shape, [, channels, height, width] = from;
    const depth = channels / group, each = filters / group, places = rows * columns;
    const size = depth * kernel[0] * kernel[1], out = new Float32Array(filters * places);
    if (depth === 1) return depthwise(out, each);
    const patches = new Float32Array(places * size);
    for (let g = 0; g < group; g++) {
      unfold(g * depth);
      multiply(weight, g * each * size, patches, 0, out, g * each * places, each, places, size, bias, g * each);
    }
    return out;

    function unfold(first) {  // patches[place] = the inputs of that place, in the order of the weights
      patches.fill(0);
      for (let c = 0; c < depth; c++)
        for (let i = 0; i < kernel[0]; i++)
          for (let j = 0; j < kernel[1]; j++) {
            const to = (c * kernel[0] + i) * kernel[1] + j;
            for (let row = 0; row < rows; row++) {
              const y = row * strides[0] + i * dilations[0] - pads[0];
              if (y < 0 || y >= height) continue;
              const line = ((first + c) * height + y) * width;
              for (let column = 0; column < columns; column++) {
                const across = column * strides[1] + j * dilations[1] - pads[1];
                if (across >= 0 && across < width) patches[(row * columns + column) * size + to] = x[line + across];
              }
            }
          }
    }

    function depthwise(out, each) {
      const sums = new Float64Array(places);
      for (let f = 0; f < filters; f++) {
        const plane = Math.floor(f / each) * height * width;
        sums.fill(bias ? bias[f] : 0);
        for (let i = 0; i < kernel[0]; i++)
          for (let j = 0; j < kernel[1]; j++) {
            const factor = weight[(f * kernel[0] + i) * kernel[1] + j], shift = j * dilations[1] - pads[1];
            const begin = Math.max(0, Math.ceil(-shift / strides[1]));
            const end = Math.min(columns, Math.floor((width - 1 - shift) / strides[1]) + 1);
            for (let row = 0; row < rows; row++) {
              const y = row * strides[0] + i * dilations[0] - pads[0];
              if (y < 0 || y >= height) continue;
              const line = plane + y * width + shift;
              for (let column = begin; column < end; column++)
                sums[row * columns + column] += factor * x[line + column * strides[1]];
            }
          }
        out.set(sums, f * places);
      }
      return out;
    }
  }

  function pool({shape, from, kernel, strides, dilations, pads, function: kind, whole}, x) {
    const [, channels, rows, columns] = shape, [, , height, width] = from;
    const out = new Float32Array(channels * rows * columns), best = kind === "max";
    let to = 0;
    for (let c = 0; c < channels; c++)
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++, to++) {
          let value = best ? -Infinity : 0, count = 0;
          for (let i = 0; i < kernel[0]; i++) {
            const y = row * strides[0] + i * dilations[0] - pads[0];
            for (let j = 0; j < kernel[1]; j++) {
              const across = column * strides[1] + j * dilations[1] - pads[1];
              if (y >= 0 && y < height && across >= 0 && across < width) {
                const one = x[(c * height + y) * width + across];
                value = best ? Math.max(value, one) : value + one;
                count++;
              } else if (whole && y < height + pads[2] && across < width + pads[3]) count++;
            }
          }
          out[to] = best ? value : value / count;
        }
    return out;
  }

  function matmul({shape, rows, depth, columns, offsets: [left, right]}, a, b) {
    const out = new Float32Array(volume(shape));
    left.forEach((matrix, i) => multiply(
      a, matrix * rows * depth, b, right[i] * depth * columns, out, i * rows * columns, rows, columns, depth, null, 0));
    return out;
  }

  /* Calls visit(first, at) for each row along the last axis: `first` counts results, `at` are places by the strides. */
  function walk(shape, strides, visit) {
    const inner = shape.length ? shape[shape.length - 1] : 1, outer = shape.slice(0, -1), count = outer.map(() => 0);
    const at = strides.map(() => 0), total = volume(shape);
    for (let first = 0; first < total; first += inner) {
      visit(first, at, inner);
      for (let axis = outer.length - 1; axis >= 0; axis--) {
        strides.forEach((one, i) => { at[i] += one[axis]; });
        if (++count[axis] < outer[axis]) break;
        strides.forEach((one, i) => { at[i] -= one[axis] * outer[axis]; });
        count[axis] = 0;
      }
    }
  }
  const last = strides => strides.length ? strides[strides.length - 1] : 0;

  function read({shape, start, strides}, x) {
    const out = new x.constructor(volume(shape)), step = last(strides);
    walk(shape, [strides], (first, [at], inner) => {
      for (let i = 0, from = start + at; i < inner; i++, from += step) out[first + i] = x[from];
    });
    return out;
  }

  function place({shape, starts, strides, fill, sides}, ...sources) {
    const out = new Float32Array(volume(shape)).fill(fill), step = last(strides);
    sources.forEach((x, number) => walk(sides[number], [strides], (first, [at], inner) => {
      for (let i = 0, to = starts[number] + at; i < inner; i++, to += step) out[to] = x[first + i];
    }));
    return out;
  }

  const PAIRS = {
    Add: (a, b) => a + b, Sub: (a, b) => a - b, Mul: (a, b) => a * b, Div: (a, b) => a / b,
    Pow: Math.pow, Min: Math.min, Max: Math.max,
  };

  function pair({shape, function: name, strides}, a, b) {
    const out = new Float32Array(volume(shape)), [left, right] = strides.map(last), of = PAIRS[name];
    walk(shape, strides, (first, [x, y], inner) => {
      for (let i = 0; i < inner; i++, x += left, y += right) out[first + i] = of(a[x], b[y]);
    });
    return out;
  }

  const clamp = (x, low, high) => x < low ? low : x > high ? high : x;
  const hardSigmoid = (x, alpha, beta) => clamp(alpha * x + beta, 0, 1);

  function erf(x) {  // a series near 0, the complement's continued fraction beyond: 1e-12
    const y = Math.abs(x);
    if (y > 6) return Math.sign(x);
    let sum = 0;
    if (y < 2.5) {
      for (let n = 0, term = y; Math.abs(term) > 1e-17; n++, term *= -y * y / n) sum += term / (2 * n + 1);
      return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
    }
    for (let n = 60; n > 0; n--) sum = n / 2 / (y + sum);
    return Math.sign(x) * (1 - Math.exp(-y * y) / Math.sqrt(Math.PI) / (y + sum));
  }

  const FUNCTIONS = {
    Sigmoid: x => 1 / (1 + Math.exp(-x)), Tanh: Math.tanh, Erf: erf, Sqrt: Math.sqrt, Exp: Math.exp, Abs: Math.abs,
    Neg: x => -x, Reciprocal: x => 1 / x, Softplus: x => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0),
    Softsign: x => x / (1 + Math.abs(x)), HardSwish: x => x * hardSigmoid(x, 1 / 6, 0.5),
    HardSigmoid: (x, {alpha, beta}) => hardSigmoid(x, alpha, beta), LeakyRelu: (x, {alpha}) => x < 0 ? alpha * x : x,
    Elu: (x, {alpha}) => x < 0 ? alpha * Math.expm1(x) : x, Gelunone: x => x / 2 * (1 + erf(x / Math.SQRT2)),
    Gelutanh: x => x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  };

  /* Results of each `inner` neighbours: visit(start, end, group number). */
  function groups(x, inner, visit) {
    for (let at = 0, number = 0; at < x.length; at += inner, number++) visit(at, at + inner, number);
  }

  function reduce({shape, function: kind, inner}, x) {
    const out = new Float32Array(volume(shape));
    groups(x, inner, (at, end, number) => {
      let sum = kind === "max" ? -Infinity : 0;
      for (; at < end; at++) sum = kind === "max" ? Math.max(sum, x[at]) : sum + x[at];
      out[number] = kind === "mean" ? sum / inner : sum;
    });
    return out;
  }

  function softmax({inner}, x) {
    const out = new Float32Array(x.length);
    groups(x, inner, (at, end) => {
      const shares = probabilities(x.subarray(at, end));
      out.set(shares, at);
    });
    return out;
  }

  function probabilities(logits, temperature = 1) {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(logits, one => Math.exp((one - most) / temperature));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(one => one / sum);
  }

  function normalise({inner, epsilon}, x) {
    const out = new Float32Array(x.length);
    groups(x, inner, (at, end) => {
      let mean = 0, square = 0;
      for (let i = at; i < end; i++) mean += x[i] / inner;
      for (let i = at; i < end; i++) square += (x[i] - mean) ** 2 / inner;
      const scale = 1 / Math.sqrt(square + epsilon);
      for (let i = at; i < end; i++) out[i] = (x[i] - mean) * scale;
    });
    return out;
  }

  function quantize({scale, zero, low, high}, x) {
    const out = new (low < 0 ? Int8Array : Uint8Array)(x.length);
    for (let i = 0; i < x.length; i++) out[i] = clamp(even(Math.fround(x[i] / scale)) + zero, low, high);
    return out;
  }

  function even(x) {  // halves are rounded to even numbers
    const down = Math.floor(x), rest = x - down;
    return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
  }

  function dequantize({zero, inner}, x, scale) {
    const out = new Float32Array(x.length), count = scale.length;
    if (count === 1) for (let i = 0; i < x.length; i++) out[i] = (x[i] - zero) * scale[0];
    else for (let i = 0; i < x.length; i++) out[i] = (x[i] - zero) * scale[Math.floor(i / inner) % count];
    return out;
  }

  const OPERATORS = {
    conv, pool, matmul, read, place, pair, reduce, softmax, normalise, quantize, dequantize,
    reshape: (_, x) => x,
    clip: ({low, high}, x) => {
      const out = new Float32Array(x.length), from = low ?? -Infinity, to = high ?? Infinity;
      for (let i = 0; i < x.length; i++) out[i] = clamp(x[i], from, to);
      return out;
    },
    map: (settings, x) => {
      const out = new Float32Array(x.length), of = FUNCTIONS[settings.function];
      for (let i = 0; i < x.length; i++) out[i] = of(x[i], settings);
      return out;
    },
  };

  return {load, probabilities};
})();
if (typeof module !== "undefined") module.exports = Runner;
