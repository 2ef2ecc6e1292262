// Flicker: while the pointer or finger rests on a synthesised slice, the real one takes its place.
document.querySelectorAll(".cell.synthesised").forEach((cell) => {
  const real = cell.previousElementSibling;
  if (!real || !real.classList.contains("real")) return;
  const image = cell.querySelector("img"), own = image.src;
  const other = real.querySelector("img").src;
  const show = (src, on) => () => { image.src = src; cell.classList.toggle("flicker", on); };
  cell.tabIndex = 0;
  ["pointerenter", "focus"].forEach((event) => cell.addEventListener(event, show(other, true)));
  ["pointerleave", "blur"].forEach((event) => cell.addEventListener(event, show(own, false)));
});
// A printed page has the fixed slices.
addEventListener("beforeprint", () => document.querySelectorAll("details.fixed").forEach((each) => { each.open = true; }));
