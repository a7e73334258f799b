// What the pages do in the browser alone, in a WebUI and on their own; the rest is gradio's.
(() => {
    // Gradio moves what is typed beside a slider to the nearer end, and nothing at all to 0, as the field loses
    // the focus. The server says what is wrong with it instead.
    document.addEventListener('blur', (event) => {
        if (event.target.matches?.('.vsf-typed input[type=number]')) event.stopImmediatePropagation();
    }, true);

    // A file that misses the drop zone would open in the page's place: it counts as one that met it.
    const zone = () => [...document.querySelectorAll('.vsf-drop')].find((one) => one.offsetParent !== null);
    for (const kind of ['dragover', 'drop']) {
        window.addEventListener(kind, (event) => {
            const dragged = event.dataTransfer;
            if (event.defaultPrevented || !dragged || ![...dragged.types].includes('Files')) return;
            const input = zone()?.querySelector('input[type=file]');
            if (!input) return;  // another part of a WebUI has the word
            event.preventDefault();
            if (kind === 'dragover') dragged.dropEffect = 'copy';
            else if (dragged.files.length) {
                input.files = dragged.files;
                input.dispatchEvent(new Event('change', {bubbles: true}));
            }
        });
    }
})();
