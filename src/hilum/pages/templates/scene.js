// Surfaces that turn: WebGL where there is one, else the still picture stays. Drag, arrow keys, + and -, Home.
(function () {
  var box = document.getElementById("scene"), data = document.getElementById("scene-data");
  if (!box || !data) { return; }
  var canvas = document.createElement("canvas");
  var gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) { return; }
  var scene = JSON.parse(data.textContent), words = box.dataset;
  function bytes(text) {
    var raw = atob(text), out = new Uint8Array(raw.length);
    for (var n = 0; n < raw.length; n++) { out[n] = raw.charCodeAt(n); }
    return new Uint16Array(out.buffer);
  }
  function shader(kind, text) {
    var made = gl.createShader(kind);
    gl.shaderSource(made, text);
    gl.compileShader(made);
    return made;
  }
  var program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER,
    "attribute vec3 place, normal; uniform mat3 turn; uniform vec3 middle; uniform vec2 zoom; varying vec3 n;" +
    "void main() { vec3 p = turn * (place - middle); n = turn * normal;" +
    "gl_Position = vec4(p.x * zoom.x, p.y * zoom.y, -p.z * 0.4, 1.0); }"));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER,
    "precision mediump float; varying vec3 n; uniform vec4 colour; uniform float side;" +
    "void main() { vec3 u = normalize(n) * side; float l = clamp(dot(u, normalize(vec3(-0.35, 0.45, 0.82))), 0.0, 1.0);" +
    "vec3 c = colour.rgb * (0.36 + 0.64 * l) + 0.22 * pow(l, 24.0);" +
    "float rim = 1.0 - abs(u.z); gl_FragColor = vec4(c, mix(colour.a, min(1.0, colour.a + 0.45), rim * rim)); }"));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) { return; }
  gl.useProgram(program);
  function at(name) { return gl.getUniformLocation(program, name); }
  var spots = { turn: at("turn"), middle: at("middle"), zoom: at("zoom"), colour: at("colour"), side: at("side") };
  function buffer(kind, values) {
    var made = gl.createBuffer();
    gl.bindBuffer(kind, made);
    gl.bufferData(kind, values, gl.STATIC_DRAW);
    return made;
  }
  var parts = scene.parts.map(function (part) {
    var raw = bytes(part.points), faces = bytes(part.triangles), count = raw.length / 3;
    var points = new Float32Array(raw.length), normals = new Float32Array(raw.length), n, k;
    for (n = 0; n < raw.length; n++) { points[n] = raw[n] / 65535; }
    for (n = 0; n < faces.length; n += 3) {
      var a = 3 * faces[n], b = 3 * faces[n + 1], c = 3 * faces[n + 2];
      var ux = points[b] - points[a], uy = points[b + 1] - points[a + 1], uz = points[b + 2] - points[a + 2];
      var vx = points[c] - points[a], vy = points[c + 1] - points[a + 1], vz = points[c + 2] - points[a + 2];
      var x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      [a, b, c].forEach(function (i) { normals[i] += x; normals[i + 1] += y; normals[i + 2] += z; });
    }
    for (n = 0; n < count; n++) {
      k = 3 * n;
      var size = Math.hypot(normals[k], normals[k + 1], normals[k + 2]) || 1;
      normals[k] /= size; normals[k + 1] /= size; normals[k + 2] /= size;
    }
    var hex = parseInt(part.colour.slice(1), 16);
    return {
      name: part.name, solid: part.solid, shown: true, count: faces.length,
      colour: [(hex >> 16) / 255, (hex >> 8 & 255) / 255, (hex & 255) / 255],
      points: buffer(gl.ARRAY_BUFFER, points), normals: buffer(gl.ARRAY_BUFFER, normals),
      faces: buffer(gl.ELEMENT_ARRAY_BUFFER, faces)
    };
  });
  var place = gl.getAttribLocation(program, "place"), normal = gl.getAttribLocation(program, "normal");
  gl.enableVertexAttribArray(place);
  gl.enableVertexAttribArray(normal);
  var yaw = 0, pitch = 0, zoom = 1, waiting = false;
  function draw() {
    waiting = false;
    var ratio = window.devicePixelRatio || 1, wide = Math.round(canvas.clientWidth * ratio);
    var high = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
    gl.viewport(0, 0, wide, high);
    gl.clearColor(16 / 255, 22 / 255, 26 / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.CULL_FACE);
    var cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
    // world: right, front, head; screen: x = -right, y = head, z = front; then yaw about the head axis, then pitch
    var rows = [[-cy, sy, 0], [-sp * sy, -sp * cy, cp], [cp * sy, cp * cy, sp]];
    gl.uniformMatrix3fv(spots.turn, false, [rows[0][0], rows[1][0], rows[2][0], rows[0][1], rows[1][1], rows[2][1],
      rows[0][2], rows[1][2], rows[2][2]]);
    var e = scene.extent;
    function reach(row) { return Math.abs(row[0]) * e[0] + Math.abs(row[1]) * e[1] + Math.abs(row[2]) * e[2]; }
    var fit = Math.min(wide / Math.max(reach(rows[0]), 0.2), high / Math.max(reach(rows[1]), 0.2)) * 1.8 * zoom;
    gl.uniform3f(spots.middle, e[0] / 2, e[1] / 2, e[2] / 2);
    gl.uniform2f(spots.zoom, fit / wide, fit / high);
    function one(part, alpha, side) {
      gl.uniform4f(spots.colour, part.colour[0], part.colour[1], part.colour[2], alpha);
      gl.uniform1f(spots.side, side);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.points);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.normals);
      gl.vertexAttribPointer(normal, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.faces);
      gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_SHORT, 0);
    }
    var shown = parts.filter(function (part) { return part.shown; });
    var solid = shown.filter(function (part) { return part.solid; });
    var soft = shown.filter(function (part) { return !part.solid; });
    gl.disable(gl.BLEND);
    gl.depthMask(true);
    gl.cullFace(gl.BACK);
    solid.forEach(function (part) { one(part, 1, 1); });
    var alpha = solid.length ? 0.5 : 0.92;
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE);
    soft.forEach(function (part) {
      gl.depthMask(false);
      gl.cullFace(gl.FRONT);
      one(part, 0.55 * alpha, -1);
    });
    soft.forEach(function (part) {
      // the nearest surface alone: first its depth, then its colour
      gl.depthMask(true);
      gl.cullFace(gl.BACK);
      gl.colorMask(false, false, false, false);
      one(part, alpha, 1);
      gl.colorMask(true, true, true, true);
      gl.depthFunc(gl.LEQUAL);
      one(part, alpha, 1);
      gl.depthFunc(gl.LESS);
    });
  }
  function ask() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
  function turn(x, y) {
    yaw += x;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + y));
    ask();
  }
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words.label);
  canvas.setAttribute("aria-describedby", "scene-help");
  canvas.addEventListener("keydown", function (event) {
    var step = 0.12, known = true;
    if (event.key === "ArrowLeft") { turn(-step, 0); }
    else if (event.key === "ArrowRight") { turn(step, 0); }
    else if (event.key === "ArrowUp") { turn(0, -step); }
    else if (event.key === "ArrowDown") { turn(0, step); }
    else if (event.key === "+" || event.key === "=") { zoom = Math.min(6, zoom * 1.15); ask(); }
    else if (event.key === "-") { zoom = Math.max(0.4, zoom / 1.15); ask(); }
    else if (event.key === "Home") { yaw = pitch = 0; zoom = 1; ask(); }
    else { known = false; }
    if (known) { event.preventDefault(); }
  });
  var last = null;
  canvas.addEventListener("pointerdown", function (event) {
    last = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", function (event) {
    if (!last) { return; }
    turn((event.clientX - last[0]) / 120, (event.clientY - last[1]) / 120);
    last = [event.clientX, event.clientY];
  });
  ["pointerup", "pointercancel"].forEach(function (name) {
    canvas.addEventListener(name, function () { last = null; });
  });
  box.querySelectorAll("input[data-part]").forEach(function (input) {
    input.addEventListener("change", function () { parts[+input.dataset.part].shown = input.checked; ask(); });
  });
  var still = box.querySelector("img");
  still.insertAdjacentElement("afterend", canvas);
  box.classList.add("turns");
  window.addEventListener("resize", ask);
  draw();
})();
