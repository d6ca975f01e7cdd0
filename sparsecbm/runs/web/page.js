// A dropped picture, prepared as the encoder does it, through model.onnx, to its ledger. Nothing leaves this page.
"use strict";
const LINES = 10;
const said = document.querySelector("#said"), drop = document.querySelector("#drop");
let session, names;

// Pillow's resampling: a separable filter, widened when shrinking, rounded to bytes after each pass.
const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }],
};

function pass(pixels, length, others, made, [support, filter], at) {
  const scale = length / made, wide = Math.max(scale, 1), out = new Uint8ClampedArray(made * others * 3);
  for (let i = 0; i < made; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * wide + 0.5));
    const last = Math.min(length, Math.trunc(center + support * wide + 0.5));
    const weights = [];
    for (let j = first; j < last; j++) weights.push(filter((j - center + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (let o = 0; o < others; o++)
      for (let c = 0; c < 3; c++) {
        let value = 0;
        for (let j = first; j < last; j++) value += weights[j - first] * pixels[at(j, o, length, others) * 3 + c];
        out[at(i, o, made, others) * 3 + c] = Math.floor(value / sum + 0.5);
      }
  }
  return out;
}

function resized(pixels, width, height, newWidth, newHeight, filter) {
  if (newWidth !== width) pixels = pass(pixels, width, height, newWidth, filter, (x, y, w) => y * w + x);
  if (newHeight !== height) pixels = pass(pixels, height, newWidth, newHeight, filter, (y, x, h, w) => y * w + x);
  return pixels;
}

const even = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // Python's round

function prepared(image) {
  const { size, resize_mode: mode, interpolation, mean, std } = names.picture;
  const [high, wide] = Array.isArray(size) ? size : [size, size];
  const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, image.width, image.height).data;
  let pixels = new Uint8ClampedArray(image.width * image.height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = rgba[Math.floor(i / 3) * 4 + (i % 3)];
  let [width, height] = [wide, high];
  if (mode === "shortest") {
    const short = Math.min(image.width, image.height), long = Math.max(image.width, image.height);
    const other = Math.trunc((wide * long) / short);
    [width, height] = image.width <= image.height ? [wide, other] : [other, wide];
  }
  pixels = resized(pixels, image.width, image.height, width, height, FILTERS[interpolation]);
  const left = even((width - wide) / 2), top = even((height - high) / 2);
  const tensor = new Float32Array(3 * high * wide), shown = new ImageData(wide, high);
  for (let y = 0; y < high; y++)
    for (let x = 0; x < wide; x++)
      for (let c = 0; c < 4; c++) {
        const value = c < 3 ? pixels[((y + top) * width + x + left) * 3 + c] : 255;
        shown.data[(y * wide + x) * 4 + c] = value;
        if (c < 3) tensor[(c * high + y) * wide + x] = (value / 255 - mean[c]) / std[c];
      }
  const seen = drop.querySelector("canvas");
  [seen.width, seen.height] = [wide, high];
  seen.getContext("2d").putImageData(shown, 0, 0);
  return new ort.Tensor("float32", tensor, [1, 3, high, wide]);
}

function row(name, value, largest, kind = "") {
  const line = document.createElement("tr");
  line.className = kind;
  for (const part of [name, "", "", (value >= 0 ? "+" : "−") + Math.abs(value).toFixed(3)])
    line.append(Object.assign(document.createElement("td"), { textContent: part }));
  line.children[1].className = line.children[2].className = "half";
  line.children[3].className = "number";
  if (largest) {
    const bar = document.createElement("div");
    bar.className = value >= 0 ? "bar" : "bar against";
    bar.style.width = `${(100 * Math.abs(value)) / largest}%`;
    line.children[value >= 0 ? 2 : 1].append(bar);
  }
  return line;
}

async function explain(file) {
  try {
    const image = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    const started = performance.now();
    const made = await session.run({ picture: prepared(image) });
    const took = performance.now() - started;
    const chances = Array.from(made.probabilities.data), parts = Array.from(made.contributions.data);
    const order = chances.map((_, k) => k).sort((a, b) => chances[b] - chances[a]);
    const active = parts.map((_, j) => j).filter((j) => parts[j] !== 0).sort((a, b) => Math.abs(parts[b]) - Math.abs(parts[a]));
    const largest = Math.max(...active.map((j) => Math.abs(parts[j])), 1e-9);
    const body = document.querySelector("#ledger tbody");
    const rest = active.slice(LINES).reduce((sum, j) => sum + parts[j], 0), base = names.intercept[order[0]];
    body.replaceChildren(...active.slice(0, LINES).map((j) => row(names.concepts[j], parts[j], largest)));
    if (active.length > LINES) body.append(row(`${active.length - LINES} others`, rest, largest, "dim"));
    body.append(row("the class itself", base, largest, "dim"));
    body.append(row(`score of ${names.classes[order[0]]}`, parts.reduce((a, b) => a + b, 0) + base, 0, "sum"));
    document.querySelector("#ledger").hidden = false;
    const then = order.slice(1, 3).map((k) => `${names.classes[k]} ${(100 * chances[k]).toFixed(1)}%`).join(", ");
    said.textContent = `${names.classes[order[0]]}, ${(100 * chances[order[0]]).toFixed(1)}%. Then ${then}. ${active.length ? "" : "No concept is active: nothing but the class itself speaks. "}(${took.toFixed(0)} ms)`;
    return { probabilities: chances, contributions: parts };
  } catch (error) {
    said.textContent = `This picture cannot be read: ${error.message}`;
    throw error;
  }
}

const ready = (async () => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  names = await (await fetch("model.json")).json();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  said.textContent = `Ready: ${names.classes.length} classes, ${names.concepts.length} concepts.`;
})();
ready.catch((error) => { said.textContent = `The model cannot be loaded: ${error.message}. Serve this folder: python -m http.server`; });
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); ready.then(() => explain(event.dataTransfer.files[0])); });
drop.querySelector("input").addEventListener("change", (event) => ready.then(() => explain(event.target.files[0])));
