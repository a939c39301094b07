"use strict";
// Each `.viewer` shows x - beta psi on a canvas, and what the classifier says of it, while its slider
// moves beta. The slider stops only at levels at which the classifier was asked: nothing is
// interpolated.

// Pixels come as 16-bit whole numbers, all low bytes before all high ones, deflated, in base64.
async function unpacked(text, steps) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const values = new Float32Array(count);
  for (let k = 0; k < count; k++) {
    values[k] = (((planes[count + k] << 24) >> 16) | planes[k]) / steps;
  }
  return values;
}

// `level` gives the gray level of value k; the canvas rounds it and clips it to [0, 255].
function draw(canvas, { width, height }, count, level) {
  const picture = new ImageData(width, height);
  const size = width * height;
  const channels = count / size;
  for (let k = 0; k < size; k++) {
    for (let c = 0; c < 3; c++) {
      picture.data[4 * k + c] = level((channels === 1 ? 0 : c) * size + k);
    }
    picture.data[4 * k + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

async function start(viewer) {
  const view = JSON.parse(viewer.querySelector("script").textContent);
  const [removed, distinct, agnostic] = viewer.querySelectorAll("canvas");
  const caption = viewer.querySelector(".removed figcaption");
  const slider = viewer.querySelector("input[type=range]");
  const rows = [...viewer.querySelectorAll(".answers li")];
  const image = await unpacked(view.image, view.steps);

  function chosen() {
    const choices = [...viewer.querySelectorAll("input[type=radio]:checked")];
    return view.parts.find((part) => choices.every(({ name, value }) => part[name] === value));
  }

  async function show() {
    const part = chosen();
    viewer.ariaBusy = "true";
    part.values ??= unpacked(part.pixels, part.steps);
    const psi = await part.values;
    if (part !== chosen()) return; // another was chosen meanwhile
    const at = Number(slider.value);
    const beta = view.betas[at];
    draw(removed, view, psi.length, (k) => image[k] - beta * psi[k]);
    const share = beta === 1 ? "" : `${beta.toFixed(2)} `;
    caption.textContent = beta === 0 ? "the image x" : `x − ${share}ψ`;
    draw(agnostic, view, psi.length, (k) => image[k] - psi[k]);
    draw(distinct, view, psi.length, (k) => 128 + (127 / 127.5 / part.scale) * psi[k]);
    viewer.querySelector(".scale").textContent = part.scale.toPrecision(2);
    const answer = part.answers[at];
    rows.forEach((row, k) => {
      row.querySelector(".share").style.width = `${100 * answer[k]}%`;
      row.querySelector("b").textContent = answer[k].toFixed(2);
    });
    const undecided = answer.at(-1).toFixed(2);
    viewer.querySelector(".neutrality").textContent = undecided;
    viewer.querySelector("output").textContent = beta.toFixed(2);
    const words = rows.map((row) => row.textContent.trim().replace(/\s+/g, " ")).join(", ");
    slider.setAttribute("aria-valuetext", `${beta.toFixed(2)}: ${words}; neutrality ${undecided}`);
    viewer.ariaBusy = "false";
  }

  viewer.addEventListener("input", show);
  await show();
}

// A viewer starts when it comes near the window, so that a long page opens at once.
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        start(target);
      }
    }
  },
  { rootMargin: "400px" },
);
for (const viewer of document.querySelectorAll(".viewer")) near.observe(viewer);
