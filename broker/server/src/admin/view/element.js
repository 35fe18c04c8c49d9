/** An element with these children; strings are text, never markup. */
export function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
