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
            const shown = zone();
            if (!shown) return;  // another tab is open: the drop is none of ours
            event.preventDefault();
            const input = shown.querySelector('input[type=file]');  // none while a file lies in it
            if (kind === 'dragover') dragged.dropEffect = input ? 'copy' : 'none';
            else if (input && dragged.files.length) {
                input.files = dragged.files;
                input.dispatchEvent(new Event('change', {bubbles: true}));
            }
        });
    }
})();
