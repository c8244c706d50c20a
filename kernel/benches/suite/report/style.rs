//! How the drawings look.

/// Style rules of the drawings. No variables, so that viewers other than browsers understand them too.
pub const FIGURE: &str = "\
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; fill: #1f2937; }
text.title { font-size: 16px; font-weight: 600; }
text.head { font-size: 13.5px; font-weight: 600; }
text.note, text.tick { font-size: 11px; fill: #5b6472; }
text.value, text.missed { font-variant-numeric: tabular-nums; }
text.missed { fill: #b42318; font-weight: 600; }
text.right { text-anchor: end; }
text.middle { text-anchor: middle; }
text.tick.right, text.tick.middle { font-variant-numeric: tabular-nums; }
text.factor { font-size: 14px; font-weight: 600; text-anchor: end; }
text.factor, text.halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
.paper { fill: #ffffff; }
line, polyline { fill: none; }
.grid { stroke: #e3e7ec; }
.axis { stroke: #98a1ae; }
.roof { stroke: #1f2937; stroke-dasharray: 3 2.5; }
.target { stroke: #ffffff; stroke-width: 4.5; }
.target.core { stroke: #111827; stroke-width: 2; }
.leader { stroke: #98a1ae; stroke-width: 0.8; }
.span { stroke: #5b6472; stroke-width: 1.2; }
.avx512bf16 { fill: #1d5fc4; } .avx512 { fill: #0b8472; } .avx2 { fill: #bf6d00; }
.neonbf16 { fill: #5b3fb0; } .neon { fill: #8b46b5; } .portable { fill: #6b7280; } .other { fill: #a3386c; }
.some { opacity: 0.55; }
polyline { stroke-width: 1.6; stroke-linejoin: round; }
polyline.dense, polyline.a2ats { stroke-width: 2.6; }
polyline.dense { stroke: #c2410c; } polyline.a2ats { stroke: #1d5fc4; }
polyline.attend { stroke: #0b8472; stroke-dasharray: 9 4; }
polyline.score { stroke: #8b46b5; stroke-dasharray: 5 3; }
polyline.retrieve { stroke: #6b7280; stroke-dasharray: 2 3; }
circle.dense, text.dense { fill: #c2410c; } circle.a2ats, text.a2ats { fill: #1d5fc4; }
circle.attend, text.attend { fill: #0b8472; } circle.score, text.score { fill: #8b46b5; }
circle.retrieve, text.retrieve { fill: #6b7280; }
text.dense, text.a2ats { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ee; }
  text.note, text.tick { fill: #9aa4b2; }
  text.missed { fill: #ff8a7a; }
  text.factor, text.halo { stroke: #12161c; }
  .paper { fill: #12161c; }
  .grid { stroke: #2a313b; }
  .axis, .leader { stroke: #6b7583; }
  .roof { stroke: #e6e9ee; }
  .target { stroke: #12161c; }
  .target.core { stroke: #ffffff; }
  .span { stroke: #9aa4b2; }
  .avx512bf16 { fill: #5c9bf5; } .avx512 { fill: #2fb8a2; } .avx2 { fill: #e0983a; }
  .neonbf16 { fill: #9a86ea; } .neon { fill: #bd85e0; } .portable { fill: #99a2b0; } .other { fill: #e07aaa; }
  polyline.dense { stroke: #fb8a4c; } polyline.a2ats { stroke: #5c9bf5; }
  polyline.attend { stroke: #2fb8a2; } polyline.score { stroke: #bd85e0; } polyline.retrieve { stroke: #99a2b0; }
  circle.dense, text.dense { fill: #fb8a4c; } circle.a2ats, text.a2ats { fill: #5c9bf5; }
  circle.attend, text.attend { fill: #2fb8a2; } circle.score, text.score { fill: #bd85e0; }
  circle.retrieve, text.retrieve { fill: #99a2b0; }
}
";
