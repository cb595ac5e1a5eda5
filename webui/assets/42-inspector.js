// One packet: its layers as a list that opens, and its bytes, sixteen in a line. A field and its bytes light up
// together, whichever is pointed at. Of the bytes only the lines in view are elements, so that any frame is cheap.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, LINE = 18;

  const LAYERS = { ethernet: "Ethernet II", llc: "LLC", vlan: "802.1Q VLAN", mpls: "MPLS", pppoe: "PPPoE", sll: "Linux cooked", sll2: "Linux cooked v2", null: "BSD loopback", hop_by_hop: "IPv6 hop-by-hop", destination_options: "IPv6 destination options", routing: "IPv6 routing", fragment: "IPv6 fragment", payload: "Payload", padding: "Padding", damaged: "Damaged", ipv4: "IPv4", ipv6: "IPv6", icmpv6: "ICMPv6", udplite: "UDP-Lite", vxlan: "VXLAN", geneve: "Geneve", gtpu: "GTP-U", control_word: "Control word", http2: "HTTP/2", openvpn: "OpenVPN", wireguard: "WireGuard", kerberos: "Kerberos", telnet: "Telnet" };
  const WORDS = { ip: "IP", tcp: "", udp: "", mac: "MAC", src: "Source", dst: "Destination", proto: "Protocol", ttl: "TTL", ihl: "Header length", tos: "Type of service", id: "ID", sni: "SNI", url: "URL", uri: "URI", mss: "MSS", vlan: "VLAN", ack: "acknowledgment", seq: "sequence", ethertype: "EtherType", alpn: "ALPN", dcid: "DCID", scid: "SCID", pcp: "PCP", dei: "DEI", oui: "OUI" };
  const title = (name) => LAYERS[name] || (name.length <= 6 ? name.toUpperCase() : name.charAt(0).toUpperCase() + name.slice(1));
  function label(name) {
    const text = name.split("_").map((w) => w in WORDS ? WORDS[w] : w).filter(Boolean).join(" ");
    return text.charAt(0).toUpperCase() + text.slice(1);
  }
  // Which filter a field's value is, and the value as the filter writes it.
  const number = (v) => (/^\d+/.exec(v) || [null])[0];
  const FILTERS = { src_ip: ["src"], dst_ip: ["dst"], src_port: ["sport", number], dst_port: ["dport", number], proto: ["proto", number], next_header: ["proto", number], arp_src_ip: ["src"], arp_dst_ip: ["dst"], server_name: ["sni"], sni: ["sni"] };
  // What a layer says of itself in one line.
  function about(layer) {
    const f = Object.fromEntries(layer.fields.map((x) => [x.name, x.value]));
    const ends = (a, b) => f[a] !== undefined && f[b] !== undefined ? `${f[a]} → ${f[b]}` : "";
    const text = ends("src_ip", "dst_ip") || ends("src_mac", "dst_mac") || [ends("src_port", "dst_port"), f.tcp_flags && f.tcp_flags.replace(/^\S+ \((.*)\)$/, "$1")].filter(Boolean).join("  ")
      || f.question || f.sni || f.server_name || [f.method, f.host, f.uri, f.status].filter(Boolean).join(" ") || f.handshake_type || f.message_type || f.icmp_type || f.arp_op || "";
    return text || `${layer.end - layer.start} bytes`;
  }

  // inspector({layers, bytes}): {show(answer), clear(text), failed(error, retry), get data, chosen()}.
  P.inspector = function (targets) {
    const tree = P.byId(targets.layers), box = P.byId(targets.bytes);
    let answer = null, data = new Uint8Array(0), fields = [], hover = null, pinned = null, cursor = -1;
    const closed = new Set(P.recall("closed-layers", window.innerWidth < 1280 ? "frame ethernet" : "").split(" "));
    const spacer = el("div", { class: "hex-space" }), lines = el("div", { class: "hex-lines" });
    const view = el("div", { class: "hex mono", tabindex: "0", role: "region", "aria-label": "Bytes" }, spacer, lines), foot = el("div", { class: "hex-foot note" });

    // --- bytes ------------------------------------------------------------------------------------------------------
    const inside = (range, at) => range !== null && at >= range[0] && at < range[1];
    const mark = (at) => inside(hover, at) ? "on" : inside(pinned, at) ? "pin" : null;
    const letter = (b) => b >= 32 && b < 127 ? String.fromCharCode(b) : "·";
    function line(first) {
      const hex = el("span", { class: "hex-bytes" }), text = el("span", { class: "hex-text" });
      for (let at = first; at < Math.min(first + 16, data.length); at += 1) {
        const cls = [mark(at), at === cursor ? "at" : "", at % 16 === 8 ? "half" : ""].filter(Boolean).join(" ") || null;
        hex.append(el("i", { class: cls, "data-at": at }, data[at].toString(16).padStart(2, "0")));
        text.append(el("i", { class: cls, "data-at": at }, letter(data[at])));
      }
      return el("div", { class: "hex-line" }, el("span", { class: "hex-place" }, first.toString(16).padStart(4, "0")), hex, text);
    }
    function draw() {
      const first = Math.floor(view.scrollTop / LINE), count = Math.ceil(view.clientHeight / LINE) + 1, out = [];
      for (let i = first; i < Math.min(first + count, Math.ceil(data.length / 16)); i += 1) out.push(line(i * 16));
      lines.replaceChildren(...out);
      lines.style.transform = `translateY(${first * LINE}px)`;
    }
    function remark() {
      for (const i of lines.querySelectorAll("[data-at]")) {
        const at = Number(i.dataset.at);
        i.classList.toggle("on", inside(hover, at));
        i.classList.toggle("pin", !inside(hover, at) && inside(pinned, at));
        i.classList.toggle("at", at === cursor);
      }
    }
    function reveal(range) {
      const top = Math.floor(range[0] / 16) * LINE, bottom = (Math.floor((range[1] - 1) / 16) + 1) * LINE;
      if (top < view.scrollTop) view.scrollTop = top; else if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = Math.min(top, bottom - view.clientHeight);
    }
    view.addEventListener("scroll", draw);
    const watcher = new ResizeObserver(draw);
    watcher.observe(view);

    // --- both ways --------------------------------------------------------------------------------------------------
    // The narrowest field that holds a byte.
    const fieldAt = (at) => fields.filter((f) => inside(f.range, at)).sort((a, b) => (a.range[1] - a.range[0]) - (b.range[1] - b.range[0]))[0];
    function light(field, range) {
      hover = range;
      for (const f of fields) f.node.classList.toggle("on", f === field);
      remark();
    }
    function pin(field, quiet) {
      const same = pinned && field && pinned[0] === field.range[0] && pinned[1] === field.range[1] && quiet !== true;
      pinned = field && !same ? field.range : null;
      for (const f of fields) {
        const on = Boolean(pinned) && f === field;
        f.node.classList.toggle("pin", on);
        f.button.setAttribute("aria-pressed", String(on));
        f.button.tabIndex = f === (field || fields[0]) ? 0 : -1;
      }
      remark();
    }
    const byteOf = (e) => { const i = e.target.closest("[data-at]"); return i ? Number(i.dataset.at) : -1; };
    function showField(field) {
      const layer = field.node.closest("details");
      if (layer) layer.open = true;
      field.node.scrollIntoView({ block: "nearest" });
    }
    lines.addEventListener("mouseover", (e) => { const at = byteOf(e), f = at < 0 ? null : fieldAt(at); light(f, f ? f.range : at < 0 ? null : [at, at + 1]); });
    lines.addEventListener("mouseleave", () => light(null, null));
    function goTo(at) {
      cursor = Math.min(data.length - 1, Math.max(0, at));
      const f = fieldAt(cursor);
      if (f) { pin(f, true); showField(f); } else { pinned = [cursor, cursor + 1]; }
      reveal([cursor, cursor + 1]);
      draw();
    }
    lines.addEventListener("click", (e) => { const at = byteOf(e); if (at >= 0) goTo(at); });
    view.addEventListener("keydown", (e) => {
      const to = { ArrowRight: cursor + 1, ArrowLeft: cursor - 1, ArrowDown: cursor < 0 ? 0 : cursor + 16, ArrowUp: cursor - 16, Home: 0, End: data.length - 1 }[e.key];
      if (to !== undefined && data.length && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); if (to >= 0 && to < data.length) goTo(to); }
    });
    tree.addEventListener("mouseover", (e) => { const n = e.target.closest("[data-field]"), f = n && fields[Number(n.dataset.field)]; light(f || null, f ? f.range : null); });
    tree.addEventListener("mouseleave", () => light(null, null));
    tree.addEventListener("click", (e) => {
      const b = e.target.closest(".field-name"), f = b && fields[Number(b.parentElement.dataset.field)];
      if (f) { pin(f); if (pinned) { cursor = f.range[0]; reveal(f.range); draw(); } }
    });
    tree.addEventListener("keydown", (e) => {
      const b = e.target.closest(".field-name, summary");
      if (!b) return;
      const seen = [...tree.querySelectorAll("summary, .field-name")].filter((n) => n.checkVisibility()), i = seen.indexOf(b), layer = b.closest("details");
      const to = { ArrowDown: seen[i + 1], ArrowUp: seen[i - 1], Home: seen[0], End: seen[seen.length - 1], ArrowLeft: b.tagName === "SUMMARY" ? null : layer && layer.querySelector("summary") }[e.key];
      if (e.key === "ArrowRight" && b.tagName === "SUMMARY") { e.preventDefault(); layer.open = true; }
      else if (e.key === "ArrowLeft" && b.tagName === "SUMMARY") { e.preventDefault(); layer.open = false; }
      else if (to) { e.preventDefault(); to.focus(); const f = to.tagName !== "SUMMARY" && fields[Number(to.parentElement.dataset.field)]; if (f) { pin(f, true); reveal(f.range); draw(); } }
    });

    // What somebody closes stays closed, in every packet.
    tree.addEventListener("toggle", (e) => {
      const name = e.target.dataset.layer;
      if (!name || e.target.open !== closed.has(name)) return;
      if (e.target.open) closed.delete(name); else closed.add(name);
      P.remember("closed-layers", [...closed].join(" "));
    }, true);

    // --- layers -----------------------------------------------------------------------------------------------------
    function fieldLine(f, range) {
      const [filter, read] = FILTERS[f.name] || [], value = filter && (read ? read(f.value) : f.value);
      const button = el("button", { type: "button", class: "field-name", tabindex: "-1", "aria-pressed": "false" }, label(f.name));
      const node = el("div", { class: "field-line", "data-field": fields.length }, button, el("span", { class: "field-value mono" }, value ? P.cell(filter, value, f.value) : f.value || "–"));
      fields.push({ node, button, range });
      return node;
    }
    const fact = (name, value, wide) => value === null || value === undefined || value === "" ? null : el("div", { class: wide ? "field-line wide" : "field-line" }, el("span", { class: "field-name" }, name), el("span", { class: "field-value mono" }, value));
    function layerBox(name, text, body, open) {
      return el("details", { open }, el("summary", {}, el("strong", {}, name), el("span", { class: "mono" }, text)), body);
    }
    function frame(a) {
      const r = a.row;
      const node = layerBox("Frame", `${F.count(a.wirelen)} bytes on the wire${a.captured && a.captured < a.wirelen ? `, ${F.count(a.captured)} captured` : ""}`, el("div", { class: "facts-pairs" },
        fact("Arrival", `${F.day(r.ts)} ${F.clockUs(r.ts)}${r.ts_nanos ? String(r.ts_nanos).padStart(3, "0") : ""} ${F.zone(r.ts)}`, true),
        fact("Number", F.count(r.frame_no)), fact("Source", el("span", { title: r.source }, r.source.split(/[\\/]/).pop())),
        fact("Sensor", P.cell("sensor", r.sensor)),
        fact("Link type", a.link_type),
        r.flow_id ? fact("Flow", P.cell("flow", String(r.flow_id))) : null,
        r.app ? fact("Application", P.cell("app", r.app)) : null,
        r.server_name ? fact("Server name", P.cell("sni", r.server_name)) : null,
        r.entropy === null || r.entropy === undefined ? null : fact("Payload entropy", `${r.entropy.toFixed(2)} bits per byte`),
        r.anomaly === null || r.anomaly === undefined ? null : fact("Anomaly", r.anomaly.toFixed(3)),
        r.status && r.status !== "ok" ? fact("Decoding", P.cell("status", r.status, r.status.replace(/_/g, " "))) : null,
      ), !closed.has("frame"));
      node.dataset.layer = "frame";
      return node;
    }
    function show(a) {
      answer = a; fields = []; hover = null; pinned = null; cursor = -1;
      data = a.bytes ? Uint8Array.from(a.bytes.match(/../g), (h) => parseInt(h, 16)) : new Uint8Array(0);
      const kept = tree.scrollTop;
      tree.replaceChildren(frame(a), ...a.layers.map((layer) => {
        const node = layerBox(title(layer.name), about(layer), layer.fields.map((f) => fieldLine(f, [f.start, Math.max(f.end, f.start + 1)])), !closed.has(layer.name));
        // A layer as a whole lights up by its summary.
        const summary = node.querySelector("summary");
        node.dataset.layer = layer.name;
        if (layer.start < data.length) {
          summary.addEventListener("mouseenter", () => light(null, [layer.start, layer.end]));
          summary.addEventListener("focus", () => { pinned = [layer.start, layer.end]; reveal(pinned); draw(); });
        }
        return node;
      }));
      tree.scrollTop = kept;
      if (fields.length) fields[0].button.tabIndex = 0;
      view.scrollTop = 0;
      spacer.style.height = `${Math.ceil(data.length / 16) * LINE}px`;
      if (a.missing) { P.empty(box, a.missing, []); return; }
      const hidden = a.captured - data.length;
      foot.textContent = hidden > 0 ? `${F.count(hidden)} bytes of payload are for operators` : "";
      view.setAttribute("aria-label", `Bytes, ${data.length} of them`);
      if (!view.isConnected) box.replaceChildren(view, foot);
      draw();
    }
    function clear(text) {
      answer = null; data = new Uint8Array(0); fields = []; pinned = null;
      P.empty(tree, text, []);
      box.replaceChildren();
    }
    return {
      show, clear,
      failed: (error, retry) => { P.failed(tree, error, retry); box.replaceChildren(); data = new Uint8Array(0); answer = null; },
      repaint: () => { if (answer) show(answer); },
      focus: () => { const first = tree.querySelector("summary"); if (first) first.focus(); },
      // The bytes of the pinned field, else all.
      chosen: () => pinned ? data.slice(pinned[0], pinned[1]) : data,
      destroy: () => watcher.disconnect(),
      get answer() { return answer; },
    };
  };
  P.inspector.hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");
  P.inspector.python = (bytes) => `b"${Array.from(bytes, (b) => b === 34 || b === 92 ? "\\" + String.fromCharCode(b) : b >= 32 && b < 127 ? String.fromCharCode(b) : "\\x" + b.toString(16).padStart(2, "0")).join("")}"`;
})();
