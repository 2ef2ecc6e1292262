// The first page: sends the dropped files, asks for the direction where it cannot be told, and starts the synthesis.
(() => {
  const drop = document.getElementById("drop"), most = Number(drop.dataset.most);
  const sending = document.getElementById("sending"), found = document.getElementById("found");
  const NEEDED = /(\.(nii|nii\.gz|json|bval|bvec|eddy_rotated_bvecs)|^bvals|^bvecs)$/, IMAGE = /\.nii(\.gz)?$/;
  const gigabytes = (bytes) => `${(bytes / 1e9).toPrecision(3)} GB`;
  let job = null; // the number of the job whose files were sent and whose scan was not yet chosen

  const complain = (text) => (document.getElementById("problem").textContent = text);
  const answer = async (path, method = "GET") => {
    let reply;
    try {
      reply = await fetch(path, { method });
    } catch {
      throw Error("pdsynth does not answer. Is it still running in the terminal?");
    }
    const text = await reply.text();
    if (!reply.ok) throw Error(text.startsWith("{") ? JSON.parse(text).problem : text);
    return text ? JSON.parse(text) : null;
  };
  const send = (file, moved) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much was sent
    request.open("PUT", `jobs/${job}/files?name=${encodeURIComponent(file.name)}`);
    request.upload.addEventListener("progress", (event) => moved(event.loaded));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve();
      else reject(Error(request.responseText.startsWith("{") ? JSON.parse(request.responseText).problem : request.responseText));
    });
    request.addEventListener("error", () => reject(Error(`${file.name} could not be sent. Is pdsynth still running in the terminal?`)));
    request.send(file);
  });

  const take = async (all) => {
    complain("");
    found.hidden = true;
    const files = all.filter((file) => NEEDED.test(file.name) && !file.name.startsWith("."));
    try {
      if (job !== null) await answer(`jobs/${job}`, "DELETE");
      job = null;
      if (!files.some((file) => IMAGE.test(file.name))) {
        const what = all.length === 1 ? `${all[0].name} is not a NIfTI scan` : "There is no NIfTI scan among these files";
        throw Error(`${what}. Drop a file that ends in .nii or .nii.gz; convert DICOM files with dcm2niix first.`);
      }
      const total = files.reduce((sum, file) => sum + file.size, 0);
      if (total > most) throw Error(`These files have ${gigabytes(total)}, more than ${gigabytes(most)}. Drop one scan only, or start pdsynth with a higher --most-gb.`);
      sending.hidden = false;
      job = (await answer("jobs", "POST")).number;
      let before = 0;
      const show = (bytes) => {
        document.getElementById("sent").value = total ? bytes / total : 1;
        sending.querySelector("output").textContent = `${gigabytes(bytes)} of ${gigabytes(total)}`;
      };
      for (const file of files) {
        await send(file, (loaded) => show(before + Math.min(loaded, file.size)));
        before += file.size;
        show(before);
      }
      await choose(await answer(`jobs/${job}/scans`), all.length - files.length);
    } catch (error) {
      complain(error.message);
      if (job !== null) await answer(`jobs/${job}`, "DELETE").catch(() => null);
      job = null;
    } finally {
      sending.hidden = true;
    }
  };

  const start = async (scan, to) => {
    try {
      const number = job;
      await answer(`jobs/${number}/synthesis?scan=${encodeURIComponent(scan.name)}&to=${to}`, "POST");
      job = null;
      location.assign(`jobs/${number}`);
    } catch (error) {
      complain(error.message);
    }
  };
  const OTHER = { fmri: "dmri", dmri: "fmri" }, NAMES = { fmri: "fMRI", dmri: "dMRI" };

  // One usable scan of a known modality needs no question.
  const choose = (scans, skipped) => {
    const usable = scans.filter((scan) => !scan.problem);
    if (scans.length === 1 && usable.length === 1 && usable[0].modality) return start(usable[0], OTHER[usable[0].modality]);
    found.hidden = false;
    found.querySelector("h2").textContent = usable.length ? "Which scan?" : "No scan can be used";
    const others = skipped === 1 ? "One other file was" : `${skipped} other files were`;
    found.querySelector(".skipped").textContent = skipped ? `${others} not needed, and not sent.` : "";
    found.querySelector("ul").replaceChildren(...scans.map(entry));
    found.querySelector("h2").scrollIntoView({ block: "nearest" });
    return null;
  };
  const entry = (scan) => {
    const item = document.getElementById("scan").content.cloneNode(true).firstElementChild;
    const put = (name, text) => (item.querySelector(`.${name}`).textContent = text);
    put("name", scan.name);
    put("about", scan.about);
    const button = (text, to) => {
      const made = document.createElement("button");
      Object.assign(made, { type: "button", className: "button", textContent: text });
      made.addEventListener("click", () => start(scan, to));
      item.querySelector(".buttons").append(made);
    };
    if (scan.problem) {
      put("why", scan.problem);
      item.querySelector(".why").classList.add("refused");
    } else if (scan.modality) {
      put("why", `${scan.label}, ${scan.sign}`);
      button(`Synthesise ${NAMES[OTHER[scan.modality]]}`, OTHER[scan.modality]);
    } else {
      const single = scan.single ? " One volume can only be the mean of an fMRI or dMRI scan, not an anatomical (T1) scan." : "";
      put("why", `Neither its name nor a .bval file says whether this is fMRI or dMRI.${single}`);
      button("It is fMRI: synthesise dMRI", "dmri");
      button("It is dMRI: synthesise fMRI", "fmri");
    }
    return item;
  };

  // Files of a dropped folder, and of the folders in it.
  const inside = async (item) => {
    if (item.isFile) return [await new Promise((resolve, reject) => item.file(resolve, reject))];
    const reader = item.createReader(), files = [];
    for (;;) { // a reader gives a hundred entries at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return files;
      for (const each of some) files.push(...(await inside(each)));
    }
  };
  ["dragenter", "dragover", "dragleave", "drop"].forEach((name) => document.addEventListener(name, (event) => {
    event.preventDefault(); // else the browser opens the file
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
  }));
  document.addEventListener("drop", async ({ dataTransfer }) => {
    const items = [...dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    const files = items.length ? (await Promise.all(items.map(inside))).flat() : [...dataTransfer.files];
    if (files.length) take(files);
  });
  addEventListener("pagehide", () => job !== null && fetch(`jobs/${job}`, { method: "DELETE", keepalive: true }));
  drop.addEventListener("change", ({ target }) => {
    const files = [...target.files];
    target.value = ""; // so that the same file can be chosen again
    if (files.length) take(files);
  });
})();
