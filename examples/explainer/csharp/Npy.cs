// Read and write the .npy files of NumPy.

using System;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.ML.OnnxRuntime;

static class Npy
{
    /// <summary>Return the array in a .npy file as a tensor of ONNX Runtime.</summary>
    public static OrtValue Read(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        if (bytes.Length < 12 || Encoding.Latin1.GetString(bytes, 1, 5) != "NUMPY")
            throw new InvalidDataException($"expected a .npy file, found {path}");
        int begin = bytes[6] == 1 ? 10 : 12;
        int length = bytes[6] == 1 ? BitConverter.ToUInt16(bytes, 8) : BitConverter.ToInt32(bytes, 8);
        string header = Encoding.Latin1.GetString(bytes, begin, length);
        if (!header.Contains("'fortran_order': False"))
            throw new InvalidDataException($"expected rows in C order in {path}. Fix: np.ascontiguousarray");
        long[] shape = Regex.Match(header, @"'shape': \(([^)]*)\)").Groups[1].Value
            .Split(',').Where(size => size.Trim() != "").Select(size => long.Parse(size)).ToArray();
        byte[] values = bytes[(begin + length)..];
        string type = Regex.Match(header, "'descr': '([^']+)'").Groups[1].Value;
        switch (type)
        {
            case "<f4": return Tensor<float>(values, shape);
            case "<f8": return Tensor<double>(values, shape);
            case "<i4": return Tensor<int>(values, shape);
            case "<i8": return Tensor<long>(values, shape);
            case "|u1": return Tensor<byte>(values, shape);
            case "|b1": return Tensor<bool>(values, shape);
            default:
                throw new InvalidDataException($"expected float32, float64, int32, int64, uint8 or bool, found {type} in {path}");
        }
    }

    /// <summary>Write a float32 array to a .npy file.</summary>
    public static void Write(string path, ReadOnlySpan<float> values, long[] shape)
    {
        string sizes = string.Join(", ", shape) + (shape.Length == 1 ? "," : "");
        string header = $"{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}";
        header = header.PadRight((header.Length + 11 + 63) / 64 * 64 - 11) + "\n";
        using var file = new BinaryWriter(File.Create(path));
        file.Write(new byte[] { 0x93, (byte)'N', (byte)'U', (byte)'M', (byte)'P', (byte)'Y', 1, 0 });
        file.Write((ushort)header.Length);
        file.Write(Encoding.Latin1.GetBytes(header));
        file.Write(MemoryMarshal.AsBytes(values).ToArray());
    }

    static OrtValue Tensor<T>(byte[] bytes, long[] shape) where T : unmanaged =>
        OrtValue.CreateTensorValueFromMemory(MemoryMarshal.Cast<byte, T>(bytes).ToArray(), shape);
}
