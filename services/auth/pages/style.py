"""The look of auth's pages, inline, so that a page needs no second request."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--ink:#1b1f24;--soft:#57606a;
--line:#8c959f;--edge:#d0d7de;--accent:#0b57d0;--on-accent:#fff;--bad:#b3261e;--bad-page:#fdecea}
@media (prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--ink:#e6edf3;--soft:#9ea7b3;
--line:#6e7681;--edge:#30363d;--accent:#8ab4f8;--on-accent:#0b1f3a;--bad:#ffb4ab;--bad-page:#3b1512}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--page);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:26rem;margin:max(1rem,8vh) auto;padding:1.75rem;background:var(--card);
border:1px solid var(--edge);border-radius:.75rem}
h1{margin:0 0 .5rem;font-size:1.5rem;line-height:1.25}
p{margin:0 0 1rem}
ul{margin:0 0 1rem;padding-left:1.25rem}
code{font-size:.875em;color:var(--soft)}
label{font-weight:600}
input{width:100%;margin-top:.25rem;padding:.6rem .75rem;font:inherit;color:inherit;
background:var(--card);border:1px solid var(--line);border-radius:.5rem}
input[readonly]{color:var(--soft);border-style:dashed}
button{width:100%;margin-bottom:.5rem;padding:.65rem 1rem;font:inherit;font-weight:600;
color:var(--on-accent);background:var(--accent);border:1px solid var(--accent);border-radius:.5rem;
cursor:pointer}
button.other{color:var(--ink);background:var(--card);border-color:var(--line)}
a{color:var(--accent)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
[role=alert]{padding:.6rem .75rem;color:var(--bad);background:var(--bad-page);border-radius:.5rem}
"""

STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
"""How a Content-Security-Policy allows this style and no other."""
