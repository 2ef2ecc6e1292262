// A button selects the text that it names, and copies it.
document.querySelectorAll("button[data-copies]").forEach((button) => {
  button.addEventListener("click", () => {
    const range = document.createRange(), selection = getSelection();
    const text = document.getElementById(button.dataset.copies), folded = text.closest("details");
    if (folded) folded.open = true; // what is not displayed cannot be copied
    range.selectNodeContents(text);
    selection.removeAllRanges();
    selection.addRange(range);
    const copied = document.execCommand("copy"); // the clipboard's newer interface needs a server
    button.textContent = copied ? "Copied" : "Selected: copy it with the keyboard";
  });
});
