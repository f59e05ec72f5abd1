/** @param {string} id @returns {any} the element of the page's own HTML */
export const byId = (id) => document.getElementById(id);

/**
 * An element; what it says is text, whatever it holds.
 * @param {string} tag @param {Record<string, string>} attributes @param {(Node | string)[]} children
 */
export const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

/** Changes a text only where it is another, which keeps what the reader has selected. @param {Node} node @param {string} text */
export const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/**
 * As many children as there are items, each brought up to date in its place.
 * @template T
 * @param {Element} parent @param {readonly T[]} items @param {() => Element} create @param {(node: any, item: T) => void} update
 */
export const fill = (parent, items, create, update) => {
  while (parent.children.length > items.length) parent.lastElementChild?.remove();
  while (parent.children.length < items.length) parent.append(create());
  items.forEach((item, index) => {
    update(parent.children[index], item);
  });
};

/**
 * A row's cells: the first one is its heading.
 * @typedef {{ cells: readonly string[], over?: string, tone?: string }} Row `over`: a line over the heading
 */

const makeRow = () => make('tr', {}, make('th', { scope: 'row' }, make('span', { class: 'over' }), ' ', make('span')));

/** @param {HTMLTableRowElement} row @param {Row} content */
const updateRow = (row, { cells, over = '', tone = '' }) => {
  const [heading, ...rest] = cells;
  const [upper, lower] = row.children[0].children;
  say(upper, over);
  say(lower, heading);
  while (row.children.length < cells.length) row.append(make('td'));
  rest.forEach((text, index) => {
    say(row.children[index + 1], text);
  });
  row.className = tone;
};

/**
 * Fills a table of the page's; without rows it says so in its place.
 * @param {string} id @param {readonly Row[]} rows
 */
export const fillTable = (id, rows) => {
  byId(id).hidden = rows.length === 0;
  byId(`${id}-none`).hidden = rows.length > 0;
  fill(byId(id).tBodies[0], rows, makeRow, updateRow);
};

/**
 * @typedef {{ name: string, value: string, note?: string, tone?: string }} Fact
 * @param {string} id @param {readonly Fact[]} facts
 */
export const fillFacts = (id, facts) => {
  const create = () => make('div', {}, make('dt'), make('dd', {}, make('span'), make('small')));
  fill(byId(id), facts, create, (node, { name, value, note = '', tone = '' }) => {
    const [term, description] = node.children;
    say(term, name);
    say(description.children[0], value);
    say(description.children[1], note);
    node.className = tone;
  });
};
