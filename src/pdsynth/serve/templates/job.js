// The page of one scan: shows the progress, opens the viewer when it is done, and removes the files on request.
(() => {
  const number = location.pathname.split("/").pop(), working = document.getElementById("working");
  const complain = (text) => (document.getElementById("problem").textContent = text);
  const GONE = "pdsynth does not answer. Is it still running in the terminal?";

  document.querySelectorAll('[name="remove"]').forEach((button) => button.addEventListener("click", async () => {
    button.disabled = true;
    await fetch(number, { method: "DELETE" }).then(() => location.assign("../"), () => complain(GONE));
  }));
  if (!working) return;

  const put = (selector, text) => {
    const element = working.querySelector(selector);
    if (element.textContent !== text) element.textContent = text; // a status is read aloud when it changes
  };
  const ask = async () => {
    try {
      const reply = await fetch(`${number}/state`), now = await reply.json();
      if (!reply.ok || now.state === "done" || now.state === "failed") return location.reload();
      complain("");
      working.querySelector("progress").value = Math.max(0, now.step - 1);
      const scans = now.ahead === 1 ? "one scan is" : `${now.ahead} scans are`;
      put(".now", now.state === "waiting" ? `Waits: ${scans} before it` : now.words || "Begins");
      put("output", now.state === "waiting" ? "" : `step ${Math.max(1, now.step)} of ${now.steps}, ${now.seconds.toFixed(0)} s`);
    } catch {
      complain(GONE);
    }
    setTimeout(ask, 500);
  };
  ask();
})();
