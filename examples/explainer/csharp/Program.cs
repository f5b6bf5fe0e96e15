// Explain inputs with an explainer file.
//
// dotnet run -- explainer.onnx x.npy                     the model's own input, (N, …); uint8 (N, height, width, 3) for
//                                                        a file with preprocessing inside
// dotnet run -- explainer.onnx x.npy --target 285 --out out
// dotnet run -- explainer.onnx ids=a.npy mask=b.npy      several inputs, each by its name
//
// Prints the explained class of each sample, its output, and the share of it that the attribution misses. Writes each map
// as an array.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

static class Program
{
    static int Main(string[] arguments)
    {
        try
        {
            Explain(arguments);
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.Message);
            return 2;
        }
    }

    static void Explain(string[] arguments)
    {
        string? target = Option(arguments, "--target");
        string folder = Option(arguments, "--out") ?? ".";
        string[] files = arguments.Where((one, i) => !one.StartsWith("--") && (i == 0 || !arguments[i - 1].StartsWith("--"))).ToArray();
        if (files.Length < 2)
            throw new ArgumentException("expected: dotnet run -- EXPLAINER [NAME=]FILE.npy… [--target N] [--out FOLDER]");

        using var session = new InferenceSession(files[0]);
        if (!session.ModelMetadata.CustomMetadataMap.TryGetValue("onnxplain.explainer", out string? text))
            throw new InvalidDataException($"expected a file of `onnxplain export`, found {files[0]} without its description");
        using JsonDocument about = JsonDocument.Parse(text);
        JsonElement[] inputs = about.RootElement.GetProperty("inputs").EnumerateArray().ToArray();
        JsonElement[] outputs = about.RootElement.GetProperty("outputs").EnumerateArray().ToArray();
        string first = Text(inputs.First(one => Text(one, "role") is "image" or "model"), "name");

        var feeds = new Dictionary<string, OrtValue>();
        try
        {
            foreach (string file in files.Skip(1))
            {
                int cut = file.LastIndexOf('=');
                feeds[cut < 0 ? first : file[..cut]] = Npy.Read(file[(cut + 1)..]);
            }
            if (target != null)
                feeds["target"] = OrtValue.CreateTensorValueFromMemory(new[] { long.Parse(target) }, new long[] { 1 });
            string[] known = inputs.Select(one => Text(one, "name")).ToArray();
            foreach (string unknown in feeds.Keys.Except(known))
                throw new ArgumentException("expected the inputs " + string.Join(", ", known) + $", found '{unknown}'");
            // Inputs with an initializer are optional: without a value the session takes their default.
            foreach (JsonElement one in inputs.Where(one => !one.GetProperty("optional").GetBoolean() && !feeds.ContainsKey(Text(one, "name"))))
                feeds[Text(one, "name")] = Default(one);
            Print(session, feeds, outputs, folder);
        }
        finally
        {
            foreach (OrtValue value in feeds.Values) value.Dispose();
        }
    }

    /// <summary>Run the session, print a line for each sample, and write the maps.</summary>
    static void Print(InferenceSession session, Dictionary<string, OrtValue> feeds, JsonElement[] outputs, string folder)
    {
        string[] names = outputs.Select(one => Text(one, "name")).ToArray();
        using var options = new RunOptions();
        using IDisposableReadOnlyCollection<OrtValue> values = session.Run(options, feeds.Keys.ToArray(), feeds.Values.ToArray(), names);
        (string Role, string Name, OrtValue Value)[] found = outputs.Select((one, i) => (Text(one, "role"), names[i], values[i])).ToArray();
        OrtValue? Of(string role) => found.Where(one => one.Role == role).Select(one => one.Value).FirstOrDefault();

        float[] explained = Floats(Of("explained")!);
        long[]? classes = Of("explained_target")?.GetTensorDataAsSpan<long>().ToArray();
        double[]? errors = Shortfall(Of("completeness_error"), Of("delta"), found.Where(one => one.Role == "attribution").Select(one => one.Value));
        for (int sample = 0; sample < explained.Length; sample++)
        {
            string line = FormattableString.Invariant($"sample {sample}: ");
            if (classes != null) line += FormattableString.Invariant($"class {classes[sample]}, ");
            line += FormattableString.Invariant($"output {explained[sample]:G6}");
            if (errors != null) line += FormattableString.Invariant($", completeness error {errors[sample]:0.0e+0}");
            Console.WriteLine(line);
        }

        Directory.CreateDirectory(folder);
        foreach (var (_, name, value) in found.Where(one => one.Role is "map" or "complete_map"))
            Npy.Write(Path.Combine(folder, Regex.Replace(name, "[^A-Za-z0-9.-]", "_") + ".npy"), Floats(value), value.GetTensorTypeAndShape().Shape);
    }

    /// <summary>Return the share of its goal that the sum of each attribution misses; null for methods without a goal.</summary>
    static double[]? Shortfall(OrtValue? error, OrtValue? delta, IEnumerable<OrtValue> attributions)
    {
        if (error != null) return Floats(error).Select(one => (double)one).ToArray();
        if (delta == null) return null;
        float[] misses = Floats(delta);
        float[][] parts = attributions.Select(Floats).ToArray();
        return misses.Select((miss, sample) =>
        {
            double total = parts.Sum(part => part.Skip(sample * (part.Length / misses.Length)).Take(part.Length / misses.Length).Sum(one => (double)one));
            return Math.Abs(miss / (total - miss));
        }).ToArray();
    }

    /// <summary>Return the default of an input: a number or a list that broadcasts to its shape.</summary>
    static OrtValue Default(JsonElement input)
    {
        JsonElement value = input.GetProperty("default");
        string name = Text(input, "name"), type = Text(input, "type");
        if (value.ValueKind == JsonValueKind.Null)
            throw new ArgumentException($"expected an array for the input '{name}', found none. Fix: add {name}=FILE.npy");
        var shape = new List<long>();
        for (JsonElement part = value; part.ValueKind == JsonValueKind.Array; part = part[0]) shape.Add(part.GetArrayLength());
        double[] numbers = Flat(value).ToArray();
        if (shape.Count == 0)
        {
            shape = input.GetProperty("shape").EnumerateArray().Select(size => size.ValueKind == JsonValueKind.Number ? size.GetInt64() : 1).ToList();
            numbers = Enumerable.Repeat(numbers[0], (int)shape.Aggregate(1L, (product, size) => product * size)).ToArray();
        }
        return type switch
        {
            "int64" => OrtValue.CreateTensorValueFromMemory(numbers.Select(one => (long)one).ToArray(), shape.ToArray()),
            "float32" => OrtValue.CreateTensorValueFromMemory(numbers.Select(one => (float)one).ToArray(), shape.ToArray()),
            _ => throw new ArgumentException($"expected an array for the input '{name}' of type {type}, found none. Fix: add {name}=FILE.npy"),
        };
    }

    static IEnumerable<double> Flat(JsonElement value) =>
        value.ValueKind == JsonValueKind.Array ? value.EnumerateArray().SelectMany(Flat) : new[] { value.GetDouble() };

    static float[] Floats(OrtValue value)
    {
        TensorElementType type = value.GetTensorTypeAndShape().ElementDataType;
        return type switch
        {
            TensorElementType.Float => value.GetTensorDataAsSpan<float>().ToArray(),
            TensorElementType.Double => value.GetTensorDataAsSpan<double>().ToArray().Select(one => (float)one).ToArray(),
            TensorElementType.Float16 => value.GetTensorDataAsSpan<Float16>().ToArray().Select(one => (float)one).ToArray(),
            _ => throw new InvalidDataException($"expected an output of floating-point numbers, found {type}"),
        };
    }

    static string Text(JsonElement one, string property) => one.GetProperty(property).GetString()!;

    static string? Option(string[] arguments, string name)
    {
        int place = Array.IndexOf(arguments, name);
        return place >= 0 && place + 1 < arguments.Length ? arguments[place + 1] : null;
    }
}
