"""The look of auth's pages, inline, so that a page needs no second request."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--page:#fcfcfd;--surface:#fff;--sunken:#f4f5f8;--ink:#14171f;
--soft:#555c6b;--edge:#e4e6ec;--edge-strong:#868d9c;--accent:#4338ca;--accent-strong:#3730a3;
--on-accent:#fff;--danger:#b3231c;--danger-soft:#fdecea;--shadow:0 1px 2px rgb(16 20 32 / 5%)}
@media (prefers-color-scheme:dark){:root{--page:#0c0e13;--surface:#13161d;--sunken:#1a1e27;
--ink:#eceef4;--soft:#a9b0bf;--edge:#262b36;--edge-strong:#747d90;--accent:#a5b0ff;
--accent-strong:#c3cbff;--on-accent:#10132a;--danger:#ff9d95;--danger-soft:#331513;--shadow:none}}
*{box-sizing:border-box}
body{max-width:28rem;margin:0 auto;padding:max(1rem,6vh) 1rem 1rem;background:var(--page);
color:var(--ink);font:.9375rem/1.6 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif;-webkit-font-smoothing:antialiased;overflow-wrap:anywhere}
h1,p,ul{margin:0}
.name,p a{display:inline-block}
main,form,.field{display:grid;gap:1rem}
main{padding:1.5rem;background:var(--surface);border:1px solid var(--edge);border-radius:.75rem;
box-shadow:var(--shadow)}
.field{gap:.375rem}
.brand{display:flex;align-items:center;justify-content:center;gap:.5rem;margin-bottom:1.5rem;
font-size:1.0625rem;font-weight:680;letter-spacing:-.02em}
.brand svg{width:1.625rem;height:1.625rem}
h1{font-size:1.5rem;line-height:1.2;letter-spacing:-.02em;font-weight:650}
h1+p{margin-top:-.5rem;color:var(--soft)}
ul{padding-left:1.25rem}
code{font:.8125rem ui-monospace,Menlo,Consolas,monospace;color:var(--soft);white-space:nowrap}
label{font-size:.875rem;font-weight:560}
.hint{color:var(--soft);font-size:.875rem}
.wrong{color:var(--danger);font-size:.875rem;font-weight:540}
.aside{font-size:.875rem;text-align:center}
input{width:100%;height:2.625rem;padding:.4375rem .75rem;font:inherit;font-size:1rem;
color:inherit;background:var(--surface);border:1px solid var(--edge-strong);border-radius:.5rem}
input[aria-invalid]{border-color:var(--danger);background:var(--danger-soft)}
input[readonly]{color:var(--soft);border-style:dashed}
.button{display:flex;align-items:center;justify-content:center;width:100%;min-height:2.375rem;
padding:.4375rem .9375rem;font:inherit;font-size:.875rem;font-weight:580;line-height:1.3;
text-align:center;text-decoration:none;color:var(--on-accent);background:var(--accent);
border:1px solid var(--accent);border-radius:.5rem;cursor:pointer}
.button:hover{background:var(--accent-strong);border-color:var(--accent-strong)}
.secondary{color:var(--ink);background:var(--surface);border-color:var(--edge-strong)}
.secondary:hover{background:var(--sunken);border-color:var(--edge-strong)}
a{color:var(--accent);text-underline-offset:.2em}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
[role=alert]{padding:.75rem 1rem;font-size:.875rem;background:var(--danger-soft);
border:1px solid var(--edge);border-left:3px solid var(--danger);border-radius:.5rem}
"""
"""The colours and sizes are those of the console, from which people come here."""

STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
"""How a Content-Security-Policy allows this style and no other."""
