/* Searches as text: their terms, adding and leaving out a tag, the order, and the rating filter around them.

   terms("hat -smile")                     [{text: "hat", start: 0, end: 3}, {text: "-smile", …}]
   withTerm("hat", "smile", "-")           "hat -smile"
   written(":)")                           'tag:":)"'
   shown("a or b order:id", ["general"])   {query: "(a or b) rating:general order:id", shift: 1} */

const SMILEYS = new Set([":)", ":(", ";)", ";(", ">:)", ">:("]);
const SINGLE = /^(order|limit|random):/i;
const RATINGS = ["general", "sensitive", "questionable", "explicit"];

/** The words of a search, quoted values kept whole. */
export function terms(text) {
  return [...text.matchAll(/(?:[^\s"']|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|["'])+/gu)].map((found) => ({
    text: found[0],
    start: found.index,
    end: found.index + found[0].length,
  }));
}

const join = (words) => words.filter(Boolean).join(" ");
const plainly = (text) => text.toLowerCase();
const opposite = (tag, sign) => (sign === "-" ? tag : `-${tag}`);

export function has(text, term) {
  return terms(text).some((word) => plainly(word.text) === plainly(term));
}

/** A tag as it is written in a search: as it is where that cannot mean anything else. */
export function written(tag) {
  const plain = /^[^\s*~()\-,"':][^\s*"':]*$/.test(tag) && !/^(or|and)$/i.test(tag) && !unbalanced([tag]);
  return plain ? tag : `tag:"${tag.replaceAll('"', '\\"')}"`;
}

/** The tag that `written` wrote. */
export const unwritten = (term) => /^tag:"(.*)"$/s.exec(term)?.[1].replaceAll('\\"', '"') ?? term;

/** The search with a term added (`sign` "") or left out ("-"); what said the opposite goes. */
export function withTerm(text, tag, sign = "") {
  const words = terms(text).map((word) => word.text);
  const kept = words.filter((word) => plainly(word) !== plainly(opposite(tag, sign)));
  if (kept.some((word) => plainly(word) === plainly(sign + tag))) return join(kept);
  const whole = join(kept);
  return join([needsParentheses(kept) ? `(${whole})` : whole, sign + tag]);
}

export function without(text, term) {
  return join(terms(text).map((word) => word.text).filter((word) => plainly(word) !== plainly(term)));
}

export function orderOf(text) {
  return terms(text).map((word) => word.text).find((word) => /^order:/i.test(word))?.slice(6).toLowerCase() ?? "";
}

export function withOrder(text, order) {
  const words = terms(text).map((word) => word.text).filter((word) => !/^order:/i.test(word));
  return join([...words, order && `order:${order}`]);
}

const needsParentheses = (words) => words.some((word) => plainly(word) === "or" || plainly(word).endsWith(")or"));

/** Whether a parenthesis is closed that none opened: then only the server can say what is meant. */
function unbalanced(words) {
  let depth = 0;
  for (const word of words) {
    if (SMILEYS.has(word) || /^-?\w+:["']/.test(word)) continue;
    for (const letter of word) {
      depth += letter === "(" ? 1 : letter === ")" ? -1 : 0;
      if (depth < 0) return true;
    }
  }
  return depth !== 0;
}

/** The term that finds what has one of these ratings; "" where everything may be shown. */
export function ratingTerm(ratings) {
  const hidden = RATINGS.filter((rating) => !ratings.includes(rating));
  if (ratings.includes("none")) return hidden.length ? `-rating:${hidden.join(",")}` : "";
  if (!hidden.length) return "rating:any";
  return ratings.length ? `rating:${RATINGS.filter((rating) => ratings.includes(rating)).join(",")}` : "rating:none rating:any";
}

/** A search made narrower by one more term, and by how many characters its text moved to the right. */
export function narrowed(text, term) {
  const found = terms(text);
  const words = found.map((word) => word.text);
  if (!term || unbalanced(words)) return { query: text, shift: 0 };
  if (!needsParentheses(words)) return { query: found.length ? `${text} ${term}` : term, shift: 0 };
  const single = words.filter((word) => SINGLE.test(word));
  const rest = words.filter((word) => !SINGLE.test(word));
  if (!single.length) return { query: `(${text}) ${term}`, shift: 1 };
  return { query: join([`(${join(rest)})`, term, ...single]), shift: 1 };
}

/** The search as the server gets it: what the person typed, and of that only the ratings that may be shown. */
export const shown = (text, ratings) => narrowed(text, ratingTerm(ratings));
