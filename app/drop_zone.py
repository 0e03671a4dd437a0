"""Where a file is dropped or chosen: it goes to the page's own address, into memory, and an event says its number."""

import json

from app.page_guard import UPLOAD, too_large
from app.uploads import KINDS

TEMPLATE = """
<label class="drop"><span><b>${label}</b><br>Drop the file here, or press to choose.
<small>WFDB: .hea with .dat or .mat. Also DICOM, SCP, XML, EDF, CSV, NPY, MATLAB.</small></span>
<input type="file" multiple accept="${accept}" aria-label="${label}: choose the ECG's file or files"></label>
<p class="said" role="status" aria-live="polite"></p>
"""
STYLE = """
.drop {position: relative; display: block; border: 2px dashed var(--border-color-primary); border-radius: 10px;
  padding: 16px; text-align: center; cursor: pointer;
  background: var(--background-fill-secondary); color: var(--body-text-color)}
.drop:hover, .drop:focus-within {border-color: var(--color-accent)}
.drop:focus-within {outline: 3px solid var(--color-accent); outline-offset: 2px}
.drop small {display: block; margin-top: 4px}
.drop input {position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer}
.said {margin: 4px 2px 0; min-height: 1.3em; color: var(--body-text-color); overflow-wrap: anywhere}
"""
SCRIPT = """
const input = element.querySelector('input'), said = element.querySelector('.said');
input.addEventListener('change', async () => {
  const files = [...input.files], names = files.map(file => file.name).join(', ');
  input.value = '';
  if (!files.length) return;
  if (files.reduce((sum, file) => sum + file.size, 0) > MOST) { said.textContent = `${names}: TOO_LARGE`; return; }
  said.textContent = `sending ${names} ...`;
  try {
    const ids = [];
    for (const file of files) {
      const response = await fetch('ADDRESS?name=' + encodeURIComponent(file.name), {method: 'POST', body: file});
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error);
      ids.push(answer.id);
    }
    said.textContent = names;
    trigger('upload', {ids});
  } catch (error) { said.textContent = error.message; }
});
"""


def drop_zone(gr, label, limits, **named):
    """A Gradio component whose ``upload`` event carries ``ids``, the numbers that `app.uploads.Waiting` gave."""
    script = SCRIPT.replace("MOST", str(limits.upload)).replace("TOO_LARGE", json.dumps(too_large(limits.upload))[1:-1])
    script = script.replace("ADDRESS", UPLOAD.lstrip("/"))
    return gr.HTML("", html_template=TEMPLATE, js_on_load=script, label=label, accept=",".join(KINDS), **named)
