export default (output) => output.length > 0;
