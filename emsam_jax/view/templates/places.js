// In neuroglancer's lists of annotations a left click selects and a right click jumps: here a left click does both.
// Lists begin at their first entry: neuroglancer, which adds entries one by one, would end at the last.
document.addEventListener("click", (event) => {
  const entry = event.target.closest(".neuroglancer-annotation-list-entry");
  if (!entry || event.target.closest(".neuroglancer-annotation-list-entry-delete")) return;
  entry.dispatchEvent(new CustomEvent("action:move-to-annotation", { cancelable: true }));
}, true);

const begun = new WeakSet();
new MutationObserver(() => {
  for (const list of document.querySelectorAll(".neuroglancer-annotation-list")) {
    if (begun.has(list) || !list.querySelector(".neuroglancer-annotation-list-entry")) continue;
    begun.add(list);
    setTimeout(() => { list.scrollTop = 0; }, 200);
  }
}).observe(document, { childList: true, subtree: true });
