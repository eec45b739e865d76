// Tools that run in the page, so that there is something to call.

const TOOLS = {
  get_weather: {
    description: "Current weather for a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", description: "The city's name" } },
      required: ["city"],
    },
    run: ({ city }) => `It is sunny in ${city}, says this page, which has not looked outside.`,
  },
  roll_dice: {
    description: "Roll dice",
    parameters: { type: "object", properties: {} },
    run: () => `You rolled a ${1 + Math.floor(Math.random() * 6)}.`,
  },
};

export const declarations = Object.entries(TOOLS).map(([name, { description, parameters }]) => ({ name, description, parameters }));

// The text that answers a call; a failure is an answer too.
export function runTool(name, argumentsText) {
  const tool = TOOLS[name];
  if (!tool) return `There is no tool called ${name}.`;
  try {
    // For no arguments, models write nothing, blanks or null.
    return tool.run(JSON.parse(argumentsText.trim() || "{}") ?? {});
  } catch (error) {
    return `The tool ${name} failed: ${error.message}`;
  }
}
