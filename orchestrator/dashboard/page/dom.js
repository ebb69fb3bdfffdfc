// Elements made by hand: every text goes in as a text node, so that no name can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(tag, { className = "", text, title, attributes = {} } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  if (title !== undefined) made.title = title;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Set a text only if it differs: a page of thousands of rows is redrawn every second.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setTitle(target, text) {
  if (target.title !== text) target.title = text;
}

export function setClass(target, name) {
  if (target.className !== name) target.className = name;
}
