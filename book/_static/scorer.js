// How the site's search ranks: what answers a phrase of search.yml, then titles, then pages, then the library.
// Sphinx takes this in the place of its own numbers, by which a function's name comes before a chapter's title.
var Scorer = {
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  objNameMatch: 8, // a function that is asked for by its whole name still comes before pages that mention it
  objPartialMatch: 3,
  objPrio: { 0: 0, 1: 0, 2: -2 },
  objPrioDefault: 0,
  // Of two entries for one word, a chapter that explains it comes before the glossary.
  score: ([page, , , object, score]) =>
    page.startsWith("book/api/") && !object ? score / 3 : page === "book/glossary" ? score - 1 : score,
};
