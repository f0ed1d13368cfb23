// A page that could not be drawn tries again by itself.
"use strict";
setTimeout(() => location.reload(), 5000);
