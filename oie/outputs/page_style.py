# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""How the status page looks: a style sheet, and the policy that allows it and nothing else."""

import base64
import hashlib

# Contrast of all texts is at least 4.5 to 1 on light and on dark (WCAG 2.1, 1.4.3).
SHEET = """\
:root{color-scheme:light dark;--page:#f3f5f7;--card:#fff;--text:#17202a;--soft:#55606d;\
--line:#dde2e8;--link:#0b5cad;--ok:#0b6b3a;--ok-bg:#e2f4e9;--late:#7d4a00;--late-bg:#fdf0d5;\
--bad:#a4161a;--bad-bg:#fde8e8;--band:#12344d;--band-text:#fff;--band-soft:#bcd0e0}
@media (prefers-color-scheme:dark){:root{--page:#0f151b;--card:#182028;--text:#e4e9ee;\
--soft:#9aa7b4;--line:#2b3641;--link:#7cb8f5;--ok:#7fdca4;--ok-bg:#12351f;--late:#f3c274;\
--late-bg:#3a2a08;--bad:#ff9d9d;--bad-bg:#431a1c;--band:#0b2233;--band-text:#f2f6f9;\
--band-soft:#9fb8cb}}
*{box-sizing:border-box}
body{margin:0;overflow-wrap:anywhere;background:var(--page);color:var(--text);\
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
header,main,footer{padding:0 clamp(1rem,4vw,3rem)}
header{background:var(--band);color:var(--band-text);padding-block:1.5rem 1.25rem}
header p{margin:0;color:var(--band-soft)}
h1{margin:.1rem 0 .7rem;font-size:clamp(1.5rem,5vw,2.1rem);line-height:1.15}
h2{margin:0 0 .6rem;font-size:1.1rem}
main{columns:2 26rem;column-gap:1rem;padding-block:1rem 0;max-width:92rem;margin:auto}
section,details{background:var(--card);border:1px solid var(--line);border-radius:.6rem;\
padding:1rem 1.1rem;margin:0 0 1rem;break-inside:avoid}
.all{column-span:all}
details{margin-top:1rem}
.alarm{border-left:.35rem solid var(--bad)}
.alarm ul{margin:0;padding-left:1.2rem}
dl{display:grid;gap:.7rem 1.2rem;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));\
margin:0 0 .4rem}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums}
header dl{max-width:70rem;margin:1rem 0 0}
header dt{color:var(--band-soft)}
.wide{overflow-x:auto;margin-top:.6rem}
.wide:focus-visible,a:focus-visible,summary:focus-visible{outline:.15rem solid var(--link);\
outline-offset:.15rem;border-radius:.2rem}
table{border-collapse:collapse;width:100%;font-size:.95rem}
caption{text-align:left;color:var(--soft);font-size:.85rem;padding-bottom:.2rem}
th,td{text-align:left;padding:.4rem .9rem .4rem 0;border-top:1px solid var(--line);\
vertical-align:top;font-weight:400;font-variant-numeric:tabular-nums}
td:last-child,th:last-child{padding-right:0}
thead th{border-top:0;overflow-wrap:normal;color:var(--soft);font-size:.85rem}
tbody th{font-weight:600;min-width:7rem}
td{white-space:nowrap}
small{display:block;font-weight:400;color:var(--soft);white-space:normal}
small.why{color:var(--bad)}
.state{display:inline-block;padding:.05rem .55rem;border-radius:1rem;font-size:.9rem;\
font-weight:600}
.ok{color:var(--ok);background:var(--ok-bg)}
.late,.waiting,.held{color:var(--late);background:var(--late-bg)}
.failed{color:var(--bad);background:var(--bad-bg)}
.none{color:var(--soft);margin:.2rem 0}
summary{cursor:pointer;font-weight:600}
a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.4rem 1.4rem;list-style:none;margin:0;padding:0}
footer{padding-block:.4rem 2rem;max-width:92rem;margin:auto;color:var(--soft)}
"""

# No script, no form, no frame, no address of anybody else; the icon is a part of the page.
_HASH = base64.b64encode(hashlib.sha256(SHEET.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ('Content-Security-Policy', POLICY),
    ('Cache-Control', 'no-store'),
    ('Referrer-Policy', 'no-referrer'),
    ('X-Content-Type-Options', 'nosniff'),
)

# Else each visit would ask for /favicon.ico, and be refused.
ICON = (
    'data:image/svg+xml,'
    '%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 viewBox=%220 0 16 16%22%3E'
    '%3Crect width=%2216%22 height=%2216%22 rx=%223%22 fill=%22%2312344d%22/%3E'
    '%3Cpath d=%22M3 11l3-4 3 2 4-5%22 fill=%22none%22 stroke=%22%237fdca4%22 '
    'stroke-width=%222%22/%3E%3C/svg%3E'
)
