module.exports = {
  strip: (output) => output.replace(/\*/g, '').trim(),
};
