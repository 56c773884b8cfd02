const paper = element.querySelector("canvas"), context = paper.getContext("2d");
let last = null;
Object.assign(context, {lineCap: "round", lineJoin: "round", lineWidth: 28, strokeStyle: "white"});
const place = event => [event.offsetX * paper.width / paper.clientWidth, event.offsetY * paper.height / paper.clientHeight];
const clear = () => { context.fillStyle = "black"; context.fillRect(0, 0, paper.width, paper.height); };
const send = () => {
  props.value = paper.toDataURL();
  trigger("submit");
};
const line = ([x, y]) => {
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(x, y);
  context.stroke();
  last = [x, y];
};
paper.addEventListener("pointerdown", event => {
  paper.setPointerCapture(event.pointerId);
  last = place(event);
  line(last);
});
paper.addEventListener("pointermove", event => { if (event.buttons && last) line(place(event)); });
paper.addEventListener("pointerup", () => { last = null; send(); });
element.querySelector("button").addEventListener("click", clear);
clear();
paper.dataset.ready = "";
