// Rows of a long table by their words, and only those to look at; without scripts the form stays hidden.
(function () {
  var form = document.getElementById("find"), table = document.querySelector("table.sortable");
  if (!form || !table) { return; }
  var words = form.querySelector("input[type=search]"), look = form.querySelector("input[type=checkbox]");
  var told = form.querySelector("output"), rows = Array.from(table.tBodies[0].rows);
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  function show() {
    var wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean), count = 0;
    rows.forEach(function (row, n) {
      var kept = (!look || !look.checked || row.classList.contains("look")) &&
        wanted.every(function (word) { return texts[n].indexOf(word) >= 0; });
      row.hidden = !kept;
      count += kept;
    });
    told.textContent = form.dataset.told.replace("{}", count).replace("{}", rows.length);
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.hidden = false;
  show();
})();
