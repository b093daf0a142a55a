// The order of search results: modules by their names, then guides and examples, operators last. But for score, the
// numbers are Sphinx's.
var Scorer = {
  score: ([page, , anchor, , score, , kind]) => {
    if (/^reference\/(operators|generated\/tamt\.ops\.)/.test(page)) return score - 20;
    const member = (anchor || "").split(".").length > 2;
    if (/^reference\/generated\/tamt\.[A-Z]\w*$/.test(page) && kind !== "text" && !member) return score + 20;
    if (/^(guide|gallery)\//.test(page)) return score + 10;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
