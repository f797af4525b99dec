const shown = document.querySelector("dialog");
const open = (image) => {
  shown.querySelector("img").src = image.src;
  shown.querySelector("img").alt = image.alt;
  shown.querySelector("p").textContent = image.alt;
  shown.showModal();
};
for (const image of document.querySelectorAll("main img")) {
  image.tabIndex = 0;
  image.addEventListener("click", () => open(image));
  image.addEventListener("keydown", (event) => event.key === "Enter" && open(image));
}
shown.addEventListener("click", () => shown.close());
