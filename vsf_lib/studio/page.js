// What the page does in the browser alone; the rest is gradio's.
(() => {
    // Gradio moves what is typed beside a slider to the nearer end, and nothing at all to 0, as the field loses
    // the focus. The server says what is wrong with it instead.
    document.addEventListener('blur', (event) => {
        if (event.target.matches?.('.vsf-form input[type=number]')) event.stopImmediatePropagation();
    }, true);
})();
