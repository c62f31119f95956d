// Theme buttons, charts in the theme's colours, and what printing needs.
(function () {
  "use strict";
  var root = document.documentElement;
  var buttons = Array.prototype.slice.call(document.querySelectorAll("[data-set-theme]"));
  var source = document.getElementById("charts");
  var charts = source ? JSON.parse(source.textContent) : {};
  var narrow = 640;

  function current() {
    return root.getAttribute("data-theme") || "auto";
  }

  function press() {
    buttons.forEach(function (button) {
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === current()));
    });
  }

  function setTheme(name) {
    if (name === "auto") {
      root.removeAttribute("data-theme");
    } else {
      root.setAttribute("data-theme", name);
    }
    try {
      if (name === "auto") {
        window.localStorage.removeItem("tritier-theme");
      } else {
        window.localStorage.setItem("tritier-theme", name);
      }
    } catch (error) {
      // It holds until the page is closed.
    }
    press();
    drawAll();
  }

  // Every text '--tt-...' becomes the colour that it names.
  function coloured(value, style) {
    if (typeof value === "string" && value.indexOf("--tt-") === 0) {
      return style.getPropertyValue(value).trim();
    }
    if (Array.isArray(value)) {
      return value.map(function (item) { return coloured(item, style); });
    }
    if (value && typeof value === "object") {
      var found = {};
      Object.keys(value).forEach(function (key) { found[key] = coloured(value[key], style); });
      return found;
    }
    return value;
  }

  function broken(text, width) {
    var lines = [""];
    text.split(" ").forEach(function (word) {
      var last = lines[lines.length - 1];
      if (last && last.length + word.length + 1 > width) {
        lines.push(word);
      } else {
        lines[lines.length - 1] = last ? last + " " + word : word;
      }
    });
    return lines.map(function (line) {
      return line.length > width + 6 ? line.slice(0, width + 4) + "\u2026" : line;
    }).join("<br>");
  }

  function axis(given, style, isNarrow) {
    var found = Object.assign({}, given, {
      gridcolor: style.getPropertyValue("--tt-grid").trim(),
      linecolor: style.getPropertyValue("--tt-line").trim(),
      zerolinecolor: style.getPropertyValue("--tt-line").trim(),
      ticks: "outside",
      tickcolor: style.getPropertyValue("--tt-line").trim(),
      automargin: true
    });
    if (given.categoryarray) {
      found.tickvals = given.categoryarray;
      found.ticktext = given.categoryarray.map(function (name) {
        return broken(name, isNarrow ? 14 : 34);
      });
    }
    return found;
  }

  function layoutOf(chart, style, width) {
    var isNarrow = width < narrow;
    var ink = style.getPropertyValue("--tt-ink").trim();
    var legendRows = Math.ceil(chart.data.length / (isNarrow ? 1 : 3));
    var layout = Object.assign({}, chart.layout, {
      xaxis: axis(chart.layout.xaxis, style, isNarrow),
      yaxis: axis(chart.layout.yaxis, style, isNarrow),
      width: width,
      font: { family: getComputedStyle(document.body).fontFamily, size: isNarrow ? 12 : 13, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: isNarrow ? 52 : 64, r: 16, t: 12, b: 56 },
      hoverlabel: { align: "left" },
      dragmode: false,
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" }
    });
    if (layout.showlegend) {
      layout.height += 20 * legendRows;
    }
    return coloured(layout, style);
  }

  function draw(place, width) {
    var chart = charts[place.dataset.chart];
    var style = getComputedStyle(root);
    var config = { displayModeBar: false, scrollZoom: false, doubleClick: false };
    return window.Plotly.react(
      place, coloured(chart.data, style), layoutOf(chart, style, width), config
    ).catch(function (error) { failed(place, error); });
  }

  function failed(place, error) {
    console.error("chart " + place.dataset.chart + " can't be drawn: " + error);
    place.textContent = "This chart can't be drawn here; its table has the same figures.";
    var table = place.parentNode.querySelector("details.alternative");
    if (table) { table.open = true; }
  }

  function drawAll(width) {
    document.querySelectorAll("[data-chart]").forEach(function (place) {
      try {
        draw(place, typeof width === "number" ? width : place.clientWidth);
      } catch (error) {
        failed(place, error);
      }
    });
  }

  buttons.forEach(function (button) {
    button.addEventListener("click", function () { setTheme(button.dataset.setTheme); });
  });
  press();

  // Contents are folded where they would push the report down.
  var contents = document.querySelector("details.contents");
  var wide = window.matchMedia("(min-width: 1000px)");
  function foldContents() { contents.open = wide.matches; }
  wide.addEventListener("change", foldContents);
  foldContents();

  drawAll();
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", function () { if (current() === "auto") { drawAll(); } });
  var waiting = 0;
  var lastWidth = window.innerWidth;
  window.addEventListener("resize", function () {
    if (window.innerWidth === lastWidth) { return; }
    lastWidth = window.innerWidth;
    window.clearTimeout(waiting);
    waiting = window.setTimeout(drawAll, 120);
  });

  // Paper is white and narrow.
  var before = null;
  window.addEventListener("beforeprint", function () {
    before = root.getAttribute("data-theme");
    root.setAttribute("data-theme", "light");
    drawAll(660);
  });
  window.addEventListener("afterprint", function () {
    if (before === null) {
      root.removeAttribute("data-theme");
    } else {
      root.setAttribute("data-theme", before);
    }
    drawAll();
  });
})();
