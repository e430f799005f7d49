// A small picture of an array on the strip of layers: its first map, one pixel a cell.

/** @type {Record<string, number[][]>} negative, zero, positive */
const COLOURS = { light: [[214, 96, 16], [255, 255, 255], [31, 111, 184]], dark: [[232, 132, 52], [32, 36, 44], [96, 170, 240]] };

/** What each canvas shows already. @type {WeakMap<HTMLCanvasElement, string>} */
const drawn = new WeakMap();

/** @param {HTMLCanvasElement} canvas @param {import("./tensor.js").Tensor} array @param {number} sample @param {boolean} dark */
export function colourOf(canvas, { shape, data }, sample, dark) {
  const own = shape.slice(1), [rows, cols] = own.length > 1 ? own.slice(-2) : [1, own[0] ?? 1];
  const first = sample * own.reduce((a, b) => a * b, 1);
  const part = data.subarray(first, first + rows * cols), context = canvas.getContext("2d");
  const same = `${dark} ${rows} ${part.join()}`;
  if (!context || drawn.get(canvas) === same) return;
  drawn.set(canvas, same);
  [canvas.width, canvas.height] = [cols, rows];
  const image = context.createImageData(cols, rows);
  const scale = part.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;
  const [negative, zero, positive] = COLOURS[dark ? "dark" : "light"];
  part.forEach((value, i) => {
    const share = Math.sqrt(Math.abs(value) / scale), end = value < 0 ? negative : positive;
    zero.forEach((base, channel) => (image.data[4 * i + channel] = base + (end[channel] - base) * share));
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}
