"""How the page looks and moves: its style sheet and its script.

In: nothing. Out: `STYLE` and `SCRIPT`, both without any address. Curve colours are those of Okabe and Ito (2008), which
people with any kind of colour vision can tell apart; on a dark page each is lighter. The page is whole without the
script, which only adds the values under the pointer and a slider through the samples.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#f7f6f2;--card:#fff;--ink:#1b2326;--soft:#5a666b;--rule:#dedcd3;--grid:#ebe9e2;
--accent:#005f9e;--mark:#fff3c4;--c0:#0072b2;--c1:#d55e00;--c2:#007e5b;--c3:#b3498a;--c4:#8a6d00;--c5:#2f97d0;--c6:#555;
--problem:#b3261e;--warning:#9a5b00;--note:#005f9e;--good:#00694c}
@media (prefers-color-scheme:dark){:root{--paper:#121719;--card:#1a2124;--ink:#e7ebea;--soft:#9fabae;--rule:#313b3f;
--grid:#262f33;--accent:#6cbcf0;--mark:#46390a;--c0:#56b4e9;--c1:#ff9248;--c2:#2fc296;--c3:#e695c2;--c4:#e3c33f;
--c5:#9bd3f5;--c6:#b5b5b5;--problem:#ff8f85;--warning:#f2b34c;--note:#6cbcf0;--good:#4fd0a5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans",sans-serif;overflow-wrap:break-word}
main{max-width:70rem;margin:0 auto;padding:2.2rem 1.2rem 4rem}
h1{font-size:clamp(1.7rem,4.5vw,2.6rem);line-height:1.15;margin:.1rem 0 .3rem;letter-spacing:-.02em}
h2{font-size:1.25rem;margin:2.8rem 0 .9rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0}
a{color:var(--accent)}
.over{color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.04em}
.under{color:var(--soft)}
.tiles{display:grid;grid-template-columns:1.5fr repeat(4,1fr);gap:.8rem;margin:1.6rem 0 0}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.8rem 1rem}
.tile dt{color:var(--soft);font-size:.82rem}
.tile dd{margin:0}
.tile .big{font-size:1.55rem;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums;line-height:1.25}
.tile .small{color:var(--soft);font-size:.82rem;line-height:1.4}
.tile.first .big{font-size:1.9rem}
.tile.first{border-color:var(--accent);box-shadow:inset 0 3px 0 var(--accent)}
.remarks{list-style:none;margin:0;padding:0;display:grid;gap:.7rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.remark:not(.note){grid-column:1/-1}
.remark{background:var(--card);border:1px solid var(--rule);border-left:5px solid var(--tone);border-radius:8px;
padding:.75rem 1.1rem .85rem}
.problem{--tone:var(--problem)}.warning{--tone:var(--warning)}.note{--tone:var(--note)}.good{--tone:var(--good)}
.remark .sign{color:var(--tone);font-size:.8rem;font-weight:650;letter-spacing:.02em}
.remark .seen{font-weight:600}
.remark .do{color:var(--soft)}
.remark code{white-space:nowrap;background:var(--grid);border-radius:4px;padding:.05em .35em;color:var(--ink)}
.remark .do::before{content:"\\2192\\00a0";color:var(--tone);font-weight:700}
blockquote{margin:.5rem 0;padding:.35rem .8rem;border-left:3px solid var(--rule);font-family:Georgia,"Noto Serif",serif;
white-space:pre-wrap}
mark{background:var(--mark);color:inherit;border-radius:2px}
.bar{position:sticky;top:0;z-index:2;display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;
gap:.4rem 1rem;margin:2.8rem 0 .9rem;padding:.5rem 0;background:var(--paper)}
.bar h2{margin:0}
fieldset{border:1px solid var(--rule);border-radius:999px;background:var(--card);margin:0;padding:.15rem;display:flex}
fieldset legend{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
fieldset label{position:relative;padding:.2rem .8rem;border-radius:999px;font-size:.88rem;cursor:pointer}
fieldset input{position:absolute;inset:0;opacity:0;margin:0;cursor:pointer}
fieldset label:has(:checked){background:var(--accent);color:var(--card);font-weight:600}
fieldset label:has(:focus-visible){outline:2px solid var(--accent);outline-offset:2px}
.charts{display:none;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:.9rem}
.charts.steps{display:grid}
body:has(#along-epochs:checked,#along-tokens:checked,#along-time:checked) .charts.steps{display:none}
body:has(#along-epochs:checked) .charts.epochs,body:has(#along-tokens:checked) .charts.tokens,
body:has(#along-time:checked) .charts.time{display:grid}
.chart{background:var(--card);border:1px solid var(--rule);border-radius:10px;margin:0;min-width:0;
padding:.8rem 1rem .5rem}
.chart:first-child{grid-column:1/-1}
.chart:first-child .plot{height:clamp(15rem,42vw,24rem)}
figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.1rem 1rem;font-weight:600;font-size:.95rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-weight:400;font-size:.82rem;color:var(--soft)}
.key{display:inline-flex;align-items:center;gap:.4rem}
.key svg{width:26px;height:8px}
.plot{position:relative;height:11.5rem;margin:.7rem .4rem 1.5rem 3.1rem;touch-action:pan-y}
.plot>svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.plot path{vector-effect:non-scaling-stroke}
.grid{stroke:var(--grid);stroke-width:1;fill:none}
.level{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4;fill:none}
.mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:5 4;fill:none}
.line{fill:none;stroke:var(--tone,var(--c0));stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.dots{fill:none;stroke:var(--tone,var(--c0));stroke-width:6.5;stroke-linecap:round}
.raw{stroke-width:1;opacity:.3}
.dash{stroke-width:1.6;stroke-dasharray:5 4;opacity:.85}
.c0{--tone:var(--c0)}.c1{--tone:var(--c1)}.c2{--tone:var(--c2)}.c3{--tone:var(--c3)}
.c4{--tone:var(--c4)}.c5{--tone:var(--c5)}.c6{--tone:var(--c6)}
.tick{position:absolute;color:var(--soft);font-size:.75rem;line-height:1;font-variant-numeric:tabular-nums;white-space:nowrap}
.tick.y{right:calc(100% + .5rem);transform:translateY(50%)}
.tick.x{top:calc(100% + .45rem);transform:translateX(-50%)}
.words{position:absolute;font-size:.75rem;line-height:1.2;color:var(--soft);padding:.1rem .35rem;white-space:nowrap;
background:color-mix(in srgb,var(--card) 75%,transparent)}
.across{text-align:right;color:var(--soft);font-size:.75rem;margin:-.3rem .4rem 0}
.cross{position:absolute;top:0;bottom:0;width:1px;background:var(--soft);pointer-events:none}
.tip{position:absolute;top:.4rem;z-index:1;pointer-events:none;background:var(--card);border:1px solid var(--rule);
border-radius:6px;padding:.25rem .55rem;font-size:.78rem;line-height:1.45;white-space:nowrap;
font-variant-numeric:tabular-nums;box-shadow:0 2px 8px rgb(0 0 0/.18)}
.tip i{display:inline-block;width:.6em;height:.6em;border-radius:50%;background:var(--tone);margin-right:.45em}
.samples{list-style:none;margin:0;padding:0;display:grid;gap:.8rem}
.sample{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem 1.1rem}
.sample h3{margin:0 0 .3rem;color:var(--soft);font-weight:600;font-size:.85rem}
.sample pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;overflow:auto;
font:.92rem/1.55 ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.slider{display:flex;align-items:center;gap:.9rem;margin:0 0 .8rem}
.slider input{flex:1;accent-color:var(--accent);min-width:0}
.slider output{min-width:7.5rem;font-variant-numeric:tabular-nums;color:var(--soft);font-size:.9rem}
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.8rem}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.3rem 1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.36rem 1rem .36rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
tr:last-child>*{border-bottom:0}
thead th{color:var(--soft);font-weight:500;font-size:.82rem}
tbody th{font-weight:500}
.number{text-align:right}
.changed{background:var(--mark);border-radius:3px;padding:0 .3em;font-weight:600}
.was{color:var(--soft);font-size:.85em;padding-left:.5em}
.best td,.best th{font-weight:650}
details>summary{cursor:pointer;color:var(--accent);margin:.5rem 0}
code{font:.87em ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.dot{display:inline-block;width:.75em;height:.75em;border-radius:50%;background:var(--tone);margin-right:.45em}
.settings{columns:24rem;column-gap:1rem}
.settings section{break-inside:avoid;padding-bottom:.2rem}
.settings h3{margin:0;padding:.6rem 0 .35rem}
.pairs th{width:42%}
footer{color:var(--soft);font-size:.82rem;margin-top:3rem;border-top:1px solid var(--rule);padding-top:.8rem}
[hidden]{display:none!important}
@media (max-width:52rem){.tiles{grid-template-columns:1fr 1fr}.tile.first{grid-column:1/-1}}
@media (max-width:34rem){main{padding:1.3rem .8rem 3rem}.tiles{gap:.5rem}
.tile{padding:.6rem .75rem}.tile .big{font-size:1.3rem}.chart{padding:.7rem .7rem .4rem}
.plot{margin-left:2.7rem}fieldset label{padding:.2rem .62rem}.bar{position:static}}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--rule:#bbb;--grid:#ddd;
--c0:#0072b2;--c1:#d55e00;--c2:#007e5b;--c3:#b3498a;--mark:#eee;--accent:#000;--problem:#b3261e;--warning:#9a5b00;
--note:#005f9e;--good:#00694c}
body{font-size:10.5pt}main{max-width:none;padding:0}fieldset,.slider{display:none}.bar{position:static}
.sample pre{max-height:none}
.chart,.remark,.tile,.sample{break-inside:avoid}h2,.bar{break-after:avoid}}
"""

SCRIPT = """
'use strict';
const clock = s => { s = Math.round(s); const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, t = s % 60;
  return (h ? h + ':' + String(m).padStart(2, '0') : m) + ':' + String(t).padStart(2, '0'); };
const words = v => Math.abs(v) >= 1000 ? Math.round(v).toLocaleString('en') : String(Number(v.toPrecision(4)));
const element = (name, cls, text) => { const e = document.createElement(name); e.className = cls;
  if (text) e.textContent = text; return e; };

function curves(plot) {
  const d = plot.dataset, [x0, x1, y0, y1] = [d.x0, d.x1, d.y0, d.y1].map(Number);
  const value = y => { const p = 1 - y / 1000; return +d.log ? y0 * Math.pow(y1 / y0, p) : y0 + p * (y1 - y0); };
  return [...plot.querySelectorAll('path.line[data-name]')].map(path => ({
    name: path.dataset.name, tone: [...path.classList].find(c => /^c\\d$/.test(c)) || 'c0',
    points: path.getAttribute('d').slice(1).split('L').map(p => { const [x, y] = p.split(' ').map(Number);
      return { at: x / 1000, x: x0 + x / 1000 * (x1 - x0), y: value(y) }; }) }));
}

for (const plot of document.querySelectorAll('.plot')) {
  let lines, cross, tip;
  const leave = () => { if (cross) { cross.remove(); tip.remove(); cross = null; } };
  const move = event => {
    lines = lines || curves(plot);
    if (!lines.length) return;
    const box = plot.getBoundingClientRect(), at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const near = lines.map(line => line.points.reduce((a, b) => Math.abs(b.at - at) < Math.abs(a.at - at) ? b : a));
    if (!cross) { cross = plot.appendChild(element('div', 'cross')); tip = plot.appendChild(element('div', 'tip')); }
    const x = near.reduce((a, b) => Math.abs(b.at - at) < Math.abs(a.at - at) ? b : a);
    cross.style.left = 100 * x.at + '%';
    const time = plot.dataset.across === 'training time';
    tip.replaceChildren(element('div', '', time ? clock(x.x) : words(x.x) + ' ' + plot.dataset.across));
    near.forEach((point, n) => { if (Math.abs(point.at - at) > 0.15) return;
      const row = element('div', lines[n].tone); row.append(element('i', ''), lines[n].name + '  ' + words(point.y));
      tip.append(row); });
    tip.style.left = x.at < 0.5 ? 'calc(' + 100 * x.at + '% + 10px)' : '';
    tip.style.right = x.at < 0.5 ? '' : 'calc(' + 100 * (1 - x.at) + '% + 10px)';
  };
  plot.addEventListener('pointermove', move);
  plot.addEventListener('pointerdown', move);
  plot.addEventListener('pointerleave', leave);
}

const list = document.querySelector('ol.samples'), samples = list ? [...list.children] : [];
if (samples.length > 1) {
  const bar = element('div', 'slider'), range = document.createElement('input'), out = document.createElement('output');
  range.type = 'range'; range.max = samples.length - 1; range.value = samples.length - 1;
  range.setAttribute('aria-label', 'which sample');
  const show = () => { samples.forEach((s, n) => { s.hidden = n !== +range.value; });
    const step = samples[range.value].dataset.step; out.textContent = 'step ' + words(+step);
    range.setAttribute('aria-valuetext', 'step ' + step); };
  range.addEventListener('input', show);
  bar.append(range, out); list.before(bar); show();
}
"""
