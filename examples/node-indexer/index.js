// Builds a search index of the Markdown files below a folder and checks the links between them.
//
//   node index.js FOLDER            writes index/search.json and index/links.json
//   node index.js FOLDER --find WORDS
//
// No packages, no processes, no connections. A broken link is told and is not a failure of the program.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const STOP = new Set('a an and are as at be but by for from has have if in is it its of on or that the this to was what when where which with'.split(' '));

function* markdownFiles(folder) {
  const entries = fs.readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* markdownFiles(full);
    else if (entry.isFile() && entry.name.endsWith('.md')) yield full;
  }
}

// Text without code, which is neither searched nor holds links.
function prose(text) {
  return text.replace(/^(```|~~~)[\s\S]*?^\1.*$/gm, '').replace(/`[^`\n]*`/g, '');
}

// The anchor that a heading gets, as most renderers make it; a second one of the same text gets "-1".
function anchors(text) {
  const seen = new Map();
  return prose(text).split('\n').filter((line) => /^#{1,6} /.test(line)).map((line) => {
    const base = line.replace(/^#+ /, '').trim().toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replace(/ /g, '-');
    const count = seen.get(base) ?? 0;
    seen.set(base, count + 1);
    return count === 0 ? base : `${base}-${count}`;
  });
}

function words(text) {
  return prose(text).toLowerCase().match(/[\p{L}\p{N}]{2,}/gu)?.filter((word) => !STOP.has(word)) ?? [];
}

function links(text) {
  const found = [];
  prose(text).split('\n').forEach((line, index) => {
    for (const match of line.matchAll(/!?\[[^\]]*\]\(([^)\s]+)(?:\s+"[^"]*")?\)/g)) {
      found.push({ line: index + 1, to: match[1] });
    }
  });
  return found;
}

function build(root) {
  const files = [...markdownFiles(root)];
  const pages = files.map((file) => {
    const text = fs.readFileSync(file, 'utf8');
    const title = /^# (.+)$/m.exec(text)?.[1] ?? path.basename(file, '.md');
    return { file: path.relative(root, file), title, anchors: anchors(text), words: words(text), links: links(text) };
  });
  const terms = new Map();
  pages.forEach((page, id) => {
    for (const word of page.words) {
      if (!terms.has(word)) terms.set(word, new Map());
      const counts = terms.get(word);
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
  });
  return {
    pages: pages.map((page) => ({ file: page.file, title: page.title, length: page.words.length })),
    terms: Object.fromEntries([...terms].sort(([a], [b]) => (a < b ? -1 : 1)).map(([word, counts]) => [word, [...counts]])),
    report: check(root, pages),
  };
}

function check(root, pages) {
  const known = new Map(pages.map((page) => [page.file, page]));
  const broken = [];
  let internal = 0;
  let external = 0;
  for (const page of pages) {
    for (const { line, to } of page.links) {
      if (/^[a-z][a-z0-9+.-]*:/i.test(to)) { external += 1; continue; }
      internal += 1;
      const [target, anchor] = to.split('#', 2);
      const file = target === '' ? page.file : path.normalize(path.join(path.dirname(page.file), decodeURI(target)));
      const say = (why) => broken.push({ file: page.file, line, to, why });
      if (file.startsWith('..')) say('leads out of the folder');
      else if (!known.has(file) && !fs.existsSync(path.join(root, file))) say('no such file');
      else if (anchor && known.has(file) && !known.get(file).anchors.includes(anchor)) say('no such heading');
    }
  }
  return { internal, external, broken };
}

// Term frequency, damped, times how rare the term is: enough to put the right page first.
function find(index, query) {
  const scores = new Map();
  for (const word of words(query)) {
    const postings = index.terms[word] ?? [];
    const rarity = Math.log(1 + index.pages.length / (1 + postings.length));
    for (const [id, count] of postings) {
      scores.set(id, (scores.get(id) ?? 0) + (rarity * count) / (count + 1 + index.pages[id].length / 200));
    }
  }
  return [...scores].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([id, score]) => ({ ...index.pages[id], score: +score.toFixed(3) }));
}

function main([root, flag, ...query]) {
  if (!root || !fs.existsSync(root)) {
    console.error('usage: node index.js FOLDER [--find WORDS]');
    return 2;
  }
  const { report, ...index } = build(root);
  if (flag === '--find') {
    for (const hit of find(index, query.join(' '))) console.log(`${hit.score.toFixed(3)}  ${hit.file}  ${hit.title}`);
    return 0;
  }
  fs.mkdirSync('index', { recursive: true });
  fs.writeFileSync('index/search.json', JSON.stringify(index) + '\n');
  fs.writeFileSync('index/links.json', JSON.stringify(report, null, 2) + '\n');
  console.log(`indexed ${index.pages.length} pages, ${Object.keys(index.terms).length} terms`);
  console.log(`checked ${report.internal} links, ${report.broken.length} broken; ${report.external} lead to other hosts`);
  for (const { file, line, to, why } of report.broken) console.log(`  ${file}:${line}: ${to}: ${why}`);
  const [best] = find(index, 'water the plants');
  if (best) console.log(`search for "water the plants": ${best.file}`);
  return 0;
}

process.exitCode = main(process.argv.slice(2));
