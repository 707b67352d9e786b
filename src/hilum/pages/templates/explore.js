(function () {
  var strips = JSON.parse(document.getElementById("strips").textContent);
  var canvas = document.getElementById("slice"), slider = document.getElementById("place");
  var which = document.getElementById("which"), over = document.getElementById("over"), told = document.getElementById("told");
  var thumbs = Array.from(document.querySelectorAll(".thumbs button"));
  var now = -1, layers = {};
  function load(uri) {
    if (!uri) { return null; }
    var image = new Image();
    image.onload = draw;
    image.src = uri;
    return image;
  }
  function draw() {
    var strip = strips[now], place = Number(slider.value), pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    ["ct", "labels"].forEach(function (name) {
      var image = layers[name];
      if (!image || !image.complete || !image.naturalWidth || (name === "labels" && over && !over.checked)) { return; }
      pen.globalAlpha = name === "labels" && layers.ct ? 0.5 : 1;
      pen.drawImage(image, 0, place * strip.height, strip.width, strip.height, 0, 0, canvas.width, canvas.height);
    });
    pen.globalAlpha = 1;
    var text = strip.case + ", slice " + (strip.slices[place] + 1) + " of " + strip.of;
    told.textContent = text + ". " + strip.text + ".";
    canvas.setAttribute("aria-label", text);
  }
  function show(number) {
    now = (number + strips.length) % strips.length;
    var strip = strips[now], times = Math.max(1, Math.ceil(600 / Math.max(strip.width, strip.height)));
    canvas.width = strip.width * times;
    canvas.height = strip.height * times;
    slider.max = strip.slices.length - 1;
    slider.value = strip.start;
    which.value = now;
    layers = { ct: load(strip.ct), labels: load(strip.labels) };
    thumbs.forEach(function (button, i) { button.setAttribute("aria-current", i === now ? "true" : "false"); });
    draw();
  }
  function step(by) { slider.value = Number(slider.value) + by; draw(); }
  slider.addEventListener("input", draw);
  if (over) { over.addEventListener("change", draw); }
  which.addEventListener("change", function () { show(Number(which.value)); });
  document.getElementById("before").addEventListener("click", function () { show(now - 1); });
  document.getElementById("after").addEventListener("click", function () { show(now + 1); });
  thumbs.forEach(function (button, i) {
    button.addEventListener("click", function () { show(i); document.getElementById("browser").scrollIntoView({ block: "nearest" }); });
  });
  document.getElementById("browser").addEventListener("keydown", function (event) {
    if (event.key === "PageUp" || event.key === "PageDown") { show(now + (event.key === "PageDown" ? 1 : -1)); event.preventDefault(); }
    if (event.target === which || event.target === slider) { return; }
    var by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (by) { step(by); event.preventDefault(); }
  });
  canvas.addEventListener("wheel", function (event) { step(event.deltaY < 0 ? 1 : -1); event.preventDefault(); }, { passive: false });
  show(0);
})();
